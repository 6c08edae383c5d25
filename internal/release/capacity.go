package release

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sealift/sealift/internal/chart"
)

// maxListPages bounds the pages of 500 that are read of one list: 20,000 pods are more than most clusters have.
const maxListPages = 40

// Amount is how much of what nodes have: CPU in thousandths of a core, memory in bytes, and pods.
type Amount struct {
	MilliCPU, Memory int64
	Pods             int64
}

func (a *Amount) add(b Amount, n int64) {
	a.MilliCPU += b.MilliCPU * n
	a.Memory += b.Memory * n
	a.Pods += b.Pods * n
}

// String is as "1.5 CPU, 2Gi memory, 3 pods".
func (a Amount) String() string {
	cpu := strconv.FormatFloat(float64(a.MilliCPU)/1000, 'f', -1, 64)
	return fmt.Sprintf("%s CPU, %s memory, %d pods", cpu, rounded(resource.NewQuantity(a.Memory, resource.BinarySI)), a.Pods)
}

// rounded writes a size of memory with few digits.
func rounded(q *resource.Quantity) string {
	for _, unit := range []struct {
		name string
		size int64
	}{{"Gi", 1 << 30}, {"Mi", 1 << 20}} {
		if v := q.Value(); v >= unit.size || v <= -unit.size {
			return strconv.FormatFloat(float64(v)/float64(unit.size), 'f', 1, 64) + unit.name
		}
	}
	return q.String()
}

// exceeds lists, in words, what a is more of than b.
func (a Amount) exceeds(b Amount) []string {
	var what []string
	if a.MilliCPU > b.MilliCPU && a.MilliCPU > 0 {
		what = append(what, "CPU")
	}
	if a.Memory > b.Memory && a.Memory > 0 {
		what = append(what, "memory")
	}
	if a.Pods > b.Pods && a.Pods > 0 {
		what = append(what, "pods")
	}
	return what
}

// Room is what the nodes have, and what is to be put on them.
type Room struct {
	// Nodes are all nodes; Usable those that are ready and take pods, of which Total is what they have, Free what of it nobody asks for.
	Nodes, Usable []NodeRoom
	Total, Free   Amount
	// Needed is what an install asks for besides, at its peak; Largest the largest of its pods, of the object LargestOf.
	Needed, Largest Amount
	LargestOf       string
	// Pods says that the pods of the cluster were counted: where they may not be listed, Free is Total.
	Pods bool
}

// NodeRoom is a node.
type NodeRoom struct {
	Name string
	// Platform is "OS/ARCHITECTURE".
	Platform    string
	Total, Free Amount
	// Blocked is why it takes no pods: "not ready", "cordoned"; empty where it does.
	Blocked string
}

// Short lists what there is not enough of, in words.
func (r *Room) Short() []string { return r.Needed.exceeds(r.Free) }

// Fits reports whether the largest pod fits on some node.
func (r *Room) Fits() bool {
	return len(r.Usable) == 0 || slices.ContainsFunc(r.Usable, func(n NodeRoom) bool { return len(r.Largest.exceeds(n.Free)) == 0 })
}

// Room compares what the nodes have with what the objects ask for. Where nodes may not be listed, [IsForbidden] holds for the error.
func (i *Inspection) Room(ctx context.Context) (*Room, error) {
	r := &Room{}
	at := map[string]int{}
	err := pages(ctx, func(ctx context.Context, o metav1.ListOptions) (string, error) {
		list, err := i.session.clientset.CoreV1().Nodes().List(ctx, o)
		if err != nil {
			return "", err
		}
		for n := range list.Items {
			node := roomOf(&list.Items[n])
			at[node.Name] = len(r.Nodes)
			r.Nodes = append(r.Nodes, node)
		}
		return list.Continue, nil
	})
	if err != nil {
		return nil, err
	}
	err = pages(ctx, func(ctx context.Context, o metav1.ListOptions) (string, error) {
		o.FieldSelector = "status.phase!=Succeeded,status.phase!=Failed"
		list, err := i.session.clientset.CoreV1().Pods("").List(ctx, o)
		if err != nil {
			return "", err
		}
		for n := range list.Items {
			if on, ok := at[list.Items[n].Spec.NodeName]; ok {
				r.Nodes[on].Free.add(requests(&list.Items[n].Spec), -1)
			}
		}
		return list.Continue, nil
	})
	if err != nil && !IsForbidden(err) {
		return nil, err
	}
	r.Pods = err == nil
	slices.SortFunc(r.Nodes, func(a, b NodeRoom) int { return strings.Compare(a.Name, b.Name) })
	for _, n := range r.Nodes {
		if n.Blocked == "" {
			r.Usable = append(r.Usable, n)
			r.Total.add(n.Total, 1)
			r.Free.add(n.Free, 1)
		}
	}
	for _, o := range i.Objects {
		if o.Role == RoleTest {
			continue
		}
		peak, pod := i.asks(ctx, o, int64(len(r.Usable)))
		r.Needed.add(peak, 1)
		if pod.MilliCPU > r.Largest.MilliCPU || pod.MilliCPU == r.Largest.MilliCPU && pod.Memory > r.Largest.Memory {
			r.Largest, r.LargestOf = pod, o.String()
		}
	}
	return r, nil
}

// pages reads a list page by page.
func pages(ctx context.Context, page func(context.Context, metav1.ListOptions) (string, error)) error {
	o := metav1.ListOptions{Limit: maxListed}
	for range maxListPages {
		next, err := func() (string, error) {
			ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
			defer cancel()
			return page(ctx, o)
		}()
		if err != nil || next == "" {
			return err
		}
		o.Continue = next
	}
	return fmt.Errorf("the list has more than %d entries", maxListPages*maxListed)
}

func roomOf(n *corev1.Node) NodeRoom {
	r := NodeRoom{Name: clean(n.Name), Platform: clean(n.Status.NodeInfo.OperatingSystem + "/" + n.Status.NodeInfo.Architecture)}
	r.Total = amountOf(n.Status.Allocatable)
	r.Total.Pods = n.Status.Allocatable.Pods().Value()
	r.Free = r.Total
	ready := slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
	switch {
	case !ready:
		r.Blocked = "not ready"
	case n.Spec.Unschedulable:
		r.Blocked = "cordoned"
	}
	return r
}

func amountOf(list corev1.ResourceList) Amount {
	return Amount{MilliCPU: list.Cpu().MilliValue(), Memory: list.Memory().Value()}
}

// requests is what a pod asks for (Kubernetes, "Init containers", resource sharing): all containers together, or the largest init
// container with the sidecars that were started before it.
func requests(spec *corev1.PodSpec) Amount {
	a := Amount{Pods: 1}
	for n := range spec.Containers {
		a.add(amountOf(spec.Containers[n].Resources.Requests), 1)
	}
	sidecars, peak := Amount{}, Amount{}
	for n := range spec.InitContainers {
		c := &spec.InitContainers[n]
		one := amountOf(c.Resources.Requests)
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			sidecars.add(one, 1)
			continue
		}
		one.add(sidecars, 1)
		peak.MilliCPU, peak.Memory = max(peak.MilliCPU, one.MilliCPU), max(peak.Memory, one.Memory)
	}
	a.add(sidecars, 1)
	a.MilliCPU, a.Memory = max(a.MilliCPU, peak.MilliCPU), max(a.Memory, peak.Memory)
	a.add(amountOf(spec.Overhead), 1)
	return a
}

// withDefaults gives containers the requests that the API server gives them: their limits.
func withDefaults(spec corev1.PodSpec) *corev1.PodSpec {
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for n := range list {
			for name, limit := range list[n].Resources.Limits {
				if _, said := list[n].Resources.Requests[name]; !said {
					if list[n].Resources.Requests == nil {
						list[n].Resources.Requests = corev1.ResourceList{}
					}
					list[n].Resources.Requests[name] = limit
				}
			}
		}
	}
	return &spec
}

// asks is what an object asks for besides what is there, at its peak, and what one of its pods does.
func (i *Inspection) asks(ctx context.Context, o *Object, nodes int64) (peak, pod Amount) {
	count, surge, template := o.pods(nodes)
	if template == nil {
		return Amount{}, Amount{}
	}
	pod = requests(withDefaults(template.Spec))
	peak.add(pod, count)
	if !o.intended.Upgrade || o.Role != RoleObject || !o.Served || !i.has(o) {
		return peak, pod
	}
	live, err := i.live(ctx, o)
	if live == nil || err != nil {
		return peak, pod
	}
	was := *o
	was.tree = live
	had, _, old := was.pods(nodes)
	if old != nil {
		peak.add(requests(&old.Spec), -had)
	}
	peak.add(pod, surge)
	// What becomes less is not there for others before it is done.
	return Amount{max(peak.MilliCPU, 0), max(peak.Memory, 0), max(peak.Pods, 0)}, pod
}

// pods is how many pods an object has, how many more while it is replaced, and what they are; nil for none.
func (o *Object) pods(nodes int64) (count, surge int64, template *corev1.PodTemplateSpec) {
	replicas := func(n *int32) int64 {
		if n == nil {
			return 1
		}
		return int64(max(*n, 0))
	}
	tree := o.tree.Object
	switch o.Kind.Group + "/" + o.Kind.Kind {
	case "apps/Deployment":
		d, ok := into[appsv1.Deployment](tree)
		if !ok {
			return 0, 0, nil
		}
		count = replicas(d.Spec.Replicas)
		if d.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType && count > 0 {
			more := intstr.FromString("25%")
			if u := d.Spec.Strategy.RollingUpdate; u != nil && u.MaxSurge != nil {
				more = *u.MaxSurge
			}
			n, err := intstr.GetScaledValueFromIntOrPercent(&more, int(count), true)
			if err == nil {
				surge = int64(max(n, 0))
			}
		}
		return count, surge, &d.Spec.Template
	case "apps/StatefulSet":
		if s, ok := into[appsv1.StatefulSet](tree); ok {
			return replicas(s.Spec.Replicas), 0, &s.Spec.Template
		}
	case "apps/ReplicaSet":
		if s, ok := into[appsv1.ReplicaSet](tree); ok {
			return replicas(s.Spec.Replicas), 0, &s.Spec.Template
		}
	case "apps/DaemonSet":
		if s, ok := into[appsv1.DaemonSet](tree); ok {
			return nodes, 0, &s.Spec.Template
		}
	case "batch/Job":
		if j, ok := into[batchv1.Job](tree); ok {
			return replicas(j.Spec.Parallelism), 0, &j.Spec.Template
		}
	case "/Pod":
		if p, ok := into[corev1.Pod](tree); ok {
			return 1, 0, &corev1.PodTemplateSpec{ObjectMeta: p.ObjectMeta, Spec: p.Spec}
		}
	}
	return 0, 0, nil
}

// Claim is a claim that is to be made, with the class that it names.
type Claim struct {
	Object *Object
	// Name is that of the claim.
	Name string
	// Class is empty for the cluster's default.
	Class string
}

// Claims lists the claims of the objects that need a storage class: those with the empty class wait for a volume that somebody makes,
// those that name a volume have it.
func (i *Inspection) Claims() []Claim {
	var list []Claim
	add := func(o *Object, c *corev1.PersistentVolumeClaim) {
		claim := Claim{Object: o, Name: clean(c.Name)}
		switch {
		case c.Spec.VolumeName != "" || c.Spec.StorageClassName != nil && *c.Spec.StorageClassName == "":
			return
		case c.Spec.StorageClassName != nil:
			claim.Class = *c.Spec.StorageClassName
		}
		list = append(list, claim)
	}
	for _, o := range i.Objects {
		switch o.Kind.Group + "/" + o.Kind.Kind {
		case "/PersistentVolumeClaim":
			if c, ok := into[corev1.PersistentVolumeClaim](o.tree.Object); ok {
				add(o, &c)
			}
		case "apps/StatefulSet":
			if s, ok := into[appsv1.StatefulSet](o.tree.Object); ok {
				for n := range s.Spec.VolumeClaimTemplates {
					add(o, &s.Spec.VolumeClaimTemplates[n])
				}
			}
		}
	}
	return list
}

// StorageClasses are the classes of the cluster, with whether they are the default, and those that volumes name which somebody made by
// hand. Where they may not be listed, [IsForbidden] holds for the error.
func (c *Cluster) StorageClasses(ctx context.Context) (classes map[string]bool, volumes map[string]bool, err error) {
	s, err := c.open(ctx, "default")
	if err != nil {
		return nil, nil, err
	}
	classes, volumes = map[string]bool{}, map[string]bool{}
	err = pages(ctx, func(ctx context.Context, o metav1.ListOptions) (string, error) {
		list, err := s.clientset.StorageV1().StorageClasses().List(ctx, o)
		if err != nil {
			return "", err
		}
		for n := range list.Items {
			classes[list.Items[n].Name] = isDefault(&list.Items[n])
		}
		return list.Continue, nil
	})
	if err != nil {
		return nil, nil, err
	}
	// Not everybody may list these; then only the classes count.
	_ = pages(ctx, func(ctx context.Context, o metav1.ListOptions) (string, error) {
		list, err := s.clientset.CoreV1().PersistentVolumes().List(ctx, o)
		if err != nil {
			return "", err
		}
		for n := range list.Items {
			if v := &list.Items[n]; v.Status.Phase == corev1.VolumeAvailable {
				volumes[v.Spec.StorageClassName] = true
			}
		}
		return list.Continue, nil
	})
	return classes, volumes, nil
}

func isDefault(c *storagev1.StorageClass) bool {
	return c.Annotations["storageclass.kubernetes.io/is-default-class"] == "true"
}

// Shortage is something that a namespace does not allow.
type Shortage struct {
	// Object is what limits, "ResourceQuota/NAMESPACE/NAME" or the like.
	Object string
	Text   string
}

// Quotas compares what the objects ask for with the quotas of their namespaces, at the peak of an upgrade. Where these may not be
// listed, [IsForbidden] holds for the error.
func (i *Inspection) Quotas(ctx context.Context) ([]Shortage, error) {
	var found []Shortage
	for _, namespace := range i.existing() {
		var quotas []corev1.ResourceQuota
		err := pages(ctx, func(ctx context.Context, o metav1.ListOptions) (string, error) {
			list, err := i.session.clientset.CoreV1().ResourceQuotas(namespace).List(ctx, o)
			if err != nil {
				return "", err
			}
			quotas = append(quotas, list.Items...)
			return list.Continue, nil
		})
		if err != nil {
			return found, fmt.Errorf("listing the quotas of namespace %q: %w", namespace, err)
		}
		if len(quotas) == 0 {
			continue
		}
		defaults := i.defaults(ctx, namespace)
		for n := range quotas {
			// Those with scopes count only some pods, which is the API server's to say.
			if q := &quotas[n]; len(q.Spec.Scopes) == 0 && q.Spec.ScopeSelector == nil {
				found = append(found, i.short(ctx, q, defaults)...)
			}
		}
	}
	return found, nil
}

// existing lists the namespaces that are there and get objects.
func (i *Inspection) existing() []string {
	var names []string
	for _, o := range i.Objects {
		if o.Namespace != "" && i.has(o) && !slices.Contains(names, o.Namespace) {
			names = append(names, o.Namespace)
		}
	}
	slices.Sort(names)
	return names
}

// defaults are the requests that a namespace gives containers that have none.
func (i *Inspection) defaults(ctx context.Context, namespace string) corev1.ResourceList {
	all := corev1.ResourceList{}
	// Where they may not be listed, there are none as far as we know.
	_ = pages(ctx, func(ctx context.Context, o metav1.ListOptions) (string, error) {
		list, err := i.session.clientset.CoreV1().LimitRanges(namespace).List(ctx, o)
		if err != nil {
			return "", err
		}
		for n := range list.Items {
			for _, l := range list.Items[n].Spec.Limits {
				if l.Type == corev1.LimitTypeContainer {
					maps.Copy(all, l.Default)
					maps.Copy(all, l.DefaultRequest)
				}
			}
		}
		return list.Continue, nil
	})
	return all
}

// short compares a quota with what its namespace is asked for.
func (i *Inspection) short(ctx context.Context, q *corev1.ResourceQuota, defaults corev1.ResourceList) []Shortage {
	var need Amount
	var silent []string
	for _, o := range i.Objects {
		if o.Namespace != q.Namespace || o.Role == RoleTest {
			continue
		}
		nodes := int64(1) // how many there are is not known here; one is the least
		peak, _ := i.asks(ctx, o, nodes)
		need.add(peak, 1)
		if _, _, template := o.pods(nodes); template != nil && !asksFor(withDefaults(template.Spec), q, defaults) {
			silent = append(silent, o.String())
		}
	}
	name := clean("ResourceQuota/" + q.Namespace + "/" + q.Name)
	var found []Shortage
	if len(silent) > 0 {
		found = append(found, Shortage{name, fmt.Sprintf("it counts what containers ask for, and those of %s say nothing", strings.Join(silent, ", "))})
	}
	for _, r := range []struct {
		names []corev1.ResourceName
		need  int64
		milli bool
	}{
		{[]corev1.ResourceName{corev1.ResourceRequestsCPU, corev1.ResourceCPU}, need.MilliCPU, true},
		{[]corev1.ResourceName{corev1.ResourceRequestsMemory, corev1.ResourceMemory}, need.Memory, false},
		{[]corev1.ResourceName{corev1.ResourcePods, "count/pods"}, need.Pods, false},
	} {
		for _, name := range r.names {
			hard, limited := q.Spec.Hard[name]
			if !limited {
				continue
			}
			used := q.Status.Used[name]
			left, want := hard.DeepCopy(), resource.NewQuantity(r.need, resource.BinarySI)
			left.Sub(used)
			if r.milli {
				want = resource.NewMilliQuantity(r.need, resource.DecimalSI)
			}
			if want.Sign() > 0 && want.Cmp(left) > 0 {
				found = append(found, Shortage{clean("ResourceQuota/" + q.Namespace + "/" + q.Name), fmt.Sprintf("of %s %s is left of %s, and %s is needed", name, &left, &hard, want)})
			}
		}
	}
	return found
}

// asksFor reports whether all containers say what a quota counts.
func asksFor(spec *corev1.PodSpec, q *corev1.ResourceQuota, defaults corev1.ResourceList) bool {
	for _, r := range []struct{ quota, plain, container corev1.ResourceName }{
		{corev1.ResourceRequestsCPU, corev1.ResourceCPU, corev1.ResourceCPU}, {corev1.ResourceRequestsMemory, corev1.ResourceMemory, corev1.ResourceMemory},
	} {
		_, counts := q.Spec.Hard[r.quota]
		_, also := q.Spec.Hard[r.plain]
		if _, given := defaults[r.container]; given || !counts && !also {
			continue
		}
		for n := range spec.Containers {
			if _, said := spec.Containers[n].Resources.Requests[r.container]; !said {
				return false
			}
		}
	}
	return true
}

// PodSecurity lists the objects whose pods the Pod Security admission of their namespaces would refuse: it refuses the pods only, and
// not what makes them, so that a dry run does not show it. docs are the objects of a release.
func (i *Inspection) PodSecurity(in Intended) ([]Shortage, error) {
	var found []Shortage
	for _, name := range i.existing() {
		n := i.namespaces[name]
		level := ""
		if n.there != nil {
			level = n.there.Labels["pod-security.kubernetes.io/enforce"]
		}
		if level == "" || level == chart.PodSecurityPrivileged {
			continue
		}
		limits := chart.Limits{PodSecurity: level}
		if limits.Validate() != nil {
			continue // the API server takes no such level for one
		}
		only, err := i.docsIn(in, name)
		if err != nil {
			return nil, err
		}
		violations, err := limits.Check(only, in.Namespace, func(pattern, text string) bool { return pattern == text })
		if err != nil {
			return nil, fmt.Errorf("release %s/%s: %w", in.Namespace, in.Release, err)
		}
		for _, v := range violations {
			found = append(found, Shortage{clean(v.Object), clean(fmt.Sprintf("namespace %q takes only pods of the level %q: %s", name, level, v.Detail))})
		}
	}
	return found, nil
}

// docsIn are the objects of a release that are in a namespace, as JSON documents.
func (i *Inspection) docsIn(in Intended, namespace string) ([]byte, error) {
	var streams [][]byte
	for _, o := range i.Objects {
		if o.Release != in.Namespace+"/"+in.Release || cmp.Or(o.Namespace, namespace) != namespace || o.Role == RoleDefinition || o.Role == RoleTest {
			continue
		}
		raw, err := json.Marshal(o.tree.Object)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", o, err)
		}
		streams = append(streams, raw)
	}
	return chart.JoinDocuments(streams...), nil
}

// ParseAmount reads quantities as Kubernetes writes them; an empty one is nothing.
func ParseAmount(cpu, memory string) (Amount, error) {
	var a Amount
	for _, q := range []struct {
		text string
		set  func(resource.Quantity)
	}{{cpu, func(q resource.Quantity) { a.MilliCPU = q.MilliValue() }}, {memory, func(q resource.Quantity) { a.Memory = q.Value() }}} {
		if q.text == "" {
			continue
		}
		n, err := resource.ParseQuantity(q.text)
		if err != nil {
			return Amount{}, fmt.Errorf("reading the quantity %q: %w", q.text, err)
		}
		q.set(n)
	}
	return a, nil
}
