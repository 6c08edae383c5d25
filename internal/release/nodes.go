package release

import (
	"context"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxNodes bounds how many nodes are listed.
const maxNodes = 500

// Node is a node of the cluster, as its kubelet describes it.
type Node struct {
	Name string
	// Hosts are its host names, IPs its addresses.
	Hosts, IPs []string
	// MachineID is that of /etc/machine-id, SystemUUID that of its board; either may be empty.
	MachineID, SystemUUID string
	// Runtime is what runs its containers, as "containerd://2.1.4".
	Runtime string
}

// Nodes lists the nodes of the cluster, in the order of their names: all of them, or of more than 500 the
// first ones. Where the account may not list them, [IsForbidden] holds for the error; others are
// *[UnreachableError].
func (c *Cluster) Nodes(ctx context.Context) ([]Node, error) {
	s, err := c.open(ctx, "default")
	if err != nil {
		return nil, err
	}
	list, err := s.clientset.CoreV1().Nodes().List(ctx, metav1.ListOptions{Limit: maxNodes})
	if IsForbidden(err) {
		return nil, forbid(err)
	}
	if err != nil {
		return nil, &UnreachableError{Server: c.server, Err: err}
	}
	nodes := make([]Node, 0, len(list.Items))
	for i := range list.Items {
		nodes = append(nodes, describe(&list.Items[i]))
	}
	slices.SortFunc(nodes, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	return nodes, nil
}

func describe(n *corev1.Node) Node {
	d := Node{
		Name: n.Name, MachineID: n.Status.NodeInfo.MachineID, SystemUUID: n.Status.NodeInfo.SystemUUID,
		Runtime: n.Status.NodeInfo.ContainerRuntimeVersion,
	}
	if host := n.Labels[corev1.LabelHostname]; host != "" {
		d.Hosts = append(d.Hosts, host)
	}
	for _, a := range n.Status.Addresses {
		switch a.Type {
		case corev1.NodeHostName, corev1.NodeInternalDNS, corev1.NodeExternalDNS:
			d.Hosts = append(d.Hosts, a.Address)
		case corev1.NodeInternalIP, corev1.NodeExternalIP:
			d.IPs = append(d.IPs, a.Address)
		}
	}
	return d
}
