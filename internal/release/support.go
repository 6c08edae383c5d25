package release

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"helm.sh/helm/v4/pkg/kube"
	releasev1 "helm.sh/helm/v4/pkg/release/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sealift/sealift/internal/redact"
	"github.com/sealift/sealift/internal/support"
)

const (
	// supportPage is how many objects are listed at a time, maxSupport how many of a kind in a namespace.
	supportPage = 200
	maxSupport  = 5000
	// supportLines and supportLog bound what is kept of a log, in lines and bytes; supportRead is what is read
	// for it, since a limit of the API cuts the end.
	supportLines = 2000
	supportLog   = 1 << 20
	supportRead  = 8 << 20
	// supportWait bounds each question.
	supportWait = 30 * time.Second
	// maxSecretDepth bounds how deep documents in Secrets are looked into.
	maxSecretDepth = 50
)

// HelmRelease says which release.
type HelmRelease struct{ Namespace, Name string }

// SupportOptions say what of a cluster goes into an archive for those who help.
type SupportOptions struct {
	// Releases are those whose objects, pods and logs are collected.
	Releases []HelmRelease
	// Namespaces are those of which all pods are, besides.
	Namespaces []string
	// Since bounds how old what logs say is; 0: it may be of any age.
	Since time.Duration
	// ConfigMaps shows what ConfigMaps hold.
	ConfigMaps bool
	// SkipSecrets reads no Secrets, so that what they hold is not known, and may be in logs.
	SkipSecrets bool
}

// Support collects what those need who help, see package support.
type Support struct {
	cluster *Cluster
	o       SupportOptions
	// unread are namespaces of which it is not known what is secret.
	unread map[string]bool
}

// Support makes ready to collect from a cluster; nothing is asked yet.
func (c *Cluster) Support(o SupportOptions) *Support {
	return &Support{cluster: c, o: o, unread: map[string]bool{}}
}

// Name implements support.Source.
func (*Support) Name() string { return "the cluster" }

// namespaces are all that something is collected from.
func (s *Support) namespaces() []string {
	all := slices.Clone(s.o.Namespaces)
	for _, r := range s.o.Releases {
		all = append(all, r.Namespace)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Secrets implements support.Source: it reads the Secrets of the namespaces, to keep what they hold out.
func (s *Support) Secrets(ctx context.Context, to *support.Archive) error {
	if s.o.SkipSecrets {
		return nil
	}
	for _, namespace := range s.namespaces() {
		err := s.secretsOf(ctx, namespace, to)
		var many *support.TooManySecretsError
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.As(err, &many) {
			return err
		}
		if err != nil {
			s.unread[namespace] = true
			to.Failed("namespace "+namespace+": its logs and events are left out, since it is not known what is secret there", err)
		}
	}
	return nil
}

func (s *Support) secretsOf(ctx context.Context, namespace string, to *support.Archive) error {
	session, err := s.cluster.open(ctx, namespace)
	if err != nil {
		return err
	}
	o := metav1.ListOptions{Limit: supportPage}
	for n := 0; ; {
		list, err := session.clientset.CoreV1().Secrets(namespace).List(ctx, o)
		if err != nil {
			return err
		}
		for i := range list.Items {
			if err := addSecret(&list.Items[i], to); err != nil {
				return err
			}
		}
		if n += len(list.Items); n > maxSupport {
			return fmt.Errorf("there are more than %d secrets", maxSupport)
		}
		if o.Continue = list.Continue; o.Continue == "" {
			return nil
		}
	}
}

// addSecret hands on what a Secret holds. Helm's records, and our own, are archives: nobody repeats them.
func addSecret(secret *corev1.Secret, to *support.Archive) error {
	if secret.Type == "helm.sh/release.v1" {
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(secret.Data)) {
		value := secret.Data[key]
		if err := to.Secret(string(value)); err != nil {
			return err
		}
		var doc any
		if json.Unmarshal(value, &doc) == nil {
			if err := to.Secret(leaves(doc, "", 0)...); err != nil {
				return err
			}
		}
	}
	return nil
}

// leaves are the texts of a document that stand under names of secrets, as in the configuration of docker.
func leaves(v any, under string, depth int) []string {
	if depth > maxSecretDepth {
		return nil
	}
	var all []string
	switch v := v.(type) {
	case map[string]any:
		for key, inner := range v {
			all = append(all, leaves(inner, key, depth+1)...)
		}
	case []any:
		for _, inner := range v {
			all = append(all, leaves(inner, under, depth+1)...)
		}
	case string:
		if under == "auth" || redact.IsName(under) {
			all = append(all, v)
		}
	}
	return all
}

// Collect implements support.Source. Errors are those of the archive, or an end of ctx.
func (s *Support) Collect(ctx context.Context, to *support.Archive) error {
	if err := s.general(ctx, to); err != nil {
		return err
	}
	for _, namespace := range s.namespaces() {
		if err := s.namespace(ctx, namespace, to); err != nil {
			return err
		}
	}
	seen := map[types.UID]bool{}
	for _, r := range s.o.Releases {
		if err := s.release(ctx, r, seen, to); err != nil {
			return err
		}
	}
	for _, namespace := range s.o.Namespaces {
		if err := s.allPods(ctx, namespace, seen, to); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// nodeReport is what is told of a node.
type nodeReport struct {
	Name        string            `json:"name"`
	Info        any               `json:"info"`
	Labels      map[string]string `json:"labels"`
	Taints      any               `json:"taints,omitempty"`
	Conditions  any               `json:"conditions"`
	Allocatable any               `json:"allocatable"`
}

// general tells of the cluster itself.
func (s *Support) general(ctx context.Context, to *support.Archive) error {
	version, err := s.cluster.Version(ctx)
	if err != nil {
		to.Failed("version of the cluster", err)
	} else if err := putJSON(to, "cluster/version.json", map[string]string{"kubernetes": version, "server": s.cluster.server}); err != nil {
		return err
	}
	session, err := s.cluster.open(ctx, "default")
	if err != nil {
		to.Failed("cluster", err)
		return nil
	}
	list, err := session.clientset.CoreV1().Nodes().List(ctx, metav1.ListOptions{Limit: maxNodes})
	if err != nil {
		to.Failed("nodes", err)
		return nil
	}
	nodes := make([]nodeReport, 0, len(list.Items))
	for i := range list.Items {
		n := &list.Items[i]
		nodes = append(nodes, nodeReport{n.Name, n.Status.NodeInfo, n.Labels, n.Spec.Taints, n.Status.Conditions, n.Status.Allocatable})
	}
	slices.SortFunc(nodes, func(a, b nodeReport) int { return cmp.Compare(a.Name, b.Name) })
	return putJSON(to, "cluster/nodes.json", nodes)
}

// namespace tells of a namespace, and of what happened there.
func (s *Support) namespace(ctx context.Context, name string, to *support.Archive) error {
	session, err := s.cluster.open(ctx, name)
	if err != nil {
		to.Failed("namespace "+name, err)
		return nil
	}
	dir := "namespaces/" + name + "/"
	if ns, err := session.clientset.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{}); err != nil {
		to.Failed("namespace "+name, err)
	} else if err := s.object(to, dir+"namespace.json", "v1", "Namespace", ns); err != nil {
		return err
	}
	claims, err := session.clientset.CoreV1().PersistentVolumeClaims(name).List(ctx, metav1.ListOptions{Limit: maxListed})
	if err != nil {
		to.Failed("claims of namespace "+name, err)
	} else {
		for i := range claims.Items {
			if err := s.object(to, dir+"claims/"+claims.Items[i].Name+".json", "v1", "PersistentVolumeClaim", &claims.Items[i]); err != nil {
				return err
			}
		}
	}
	if s.unread[name] {
		return nil
	}
	var events []corev1.Event
	o := metav1.ListOptions{Limit: supportPage}
	for {
		list, err := session.clientset.CoreV1().Events(name).List(ctx, o)
		if err != nil {
			to.Failed("events of namespace "+name, err)
			break
		}
		events = append(events, list.Items...)
		if o.Continue = list.Continue; o.Continue == "" || len(events) > maxSupport {
			break
		}
	}
	return to.Text(dir+"events.txt", eventsText(events))
}

// eventsText has a line for each event, the newest last.
func eventsText(events []corev1.Event) []byte {
	at := func(e *corev1.Event) time.Time {
		for _, t := range []time.Time{e.LastTimestamp.Time, e.EventTime.Time, e.CreationTimestamp.Time} {
			if !t.IsZero() {
				return t
			}
		}
		return time.Time{}
	}
	slices.SortStableFunc(events, func(a, b corev1.Event) int {
		return cmp.Or(at(&a).Compare(at(&b)), cmp.Compare(a.Name, b.Name))
	})
	var b bytes.Buffer
	for i := range events {
		e := &events[i]
		fmt.Fprintf(&b, "%s  %-7s  %s  %s/%s  x%d  %s\n", at(e).UTC().Format(time.RFC3339), e.Type, e.Reason, e.InvolvedObject.Kind, e.InvolvedObject.Name,
			max(1, e.Count), strings.Join(strings.Fields(e.Message), " "))
	}
	return b.Bytes()
}

// helmRevision is what is told of a revision: nothing of its values.
type helmRevision struct {
	Revision    int    `json:"revision"`
	Status      string `json:"status"`
	Chart       string `json:"chart"`
	Version     string `json:"version"`
	App         string `json:"appVersion,omitempty"`
	First       string `json:"firstDeployed,omitempty"`
	Last        string `json:"lastDeployed,omitempty"`
	Description string `json:"description,omitempty"`
	Hooks       []hook `json:"hooks,omitempty"`
}

type hook struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Phase  string `json:"phase"`
	Began  string `json:"began,omitempty"`
	Ended  string `json:"ended,omitempty"`
	Events []any  `json:"events"`
}

func revisionReport(r *releasev1.Release) helmRevision {
	v := helmRevision{Revision: r.Version}
	if r.Chart != nil && r.Chart.Metadata != nil {
		v.Chart, v.Version, v.App = r.Chart.Metadata.Name, r.Chart.Metadata.Version, r.Chart.Metadata.AppVersion
	}
	if r.Info != nil {
		v.Status, v.Description = r.Info.Status.String(), clean(r.Info.Description)
		v.First, v.Last = stamp(r.Info.FirstDeployed), stamp(r.Info.LastDeployed)
	}
	for _, h := range r.Hooks {
		events := []any{}
		for _, e := range h.Events {
			events = append(events, e)
		}
		v.Hooks = append(v.Hooks, hook{h.Kind, h.Name, fmt.Sprint(h.LastRun.Phase), stamp(h.LastRun.StartedAt), stamp(h.LastRun.CompletedAt), events})
	}
	return v
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// release tells of a release: what Helm knows of it, its objects as they are, its pods and what they say.
func (s *Support) release(ctx context.Context, r HelmRelease, seen map[types.UID]bool, to *support.Archive) error {
	what := "release " + r.Namespace + "/" + r.Name
	session, err := s.cluster.open(ctx, r.Namespace)
	if err != nil {
		to.Failed(what, err)
		return nil
	}
	dir := "releases/" + r.Namespace + "/" + r.Name + "/"
	h, err := session.history(r.Name)
	if err != nil {
		to.Failed(what+": Helm's records", err)
	}
	revisions := []helmRevision{}
	for _, one := range h {
		revisions = append(revisions, revisionReport(one))
	}
	if err := putJSON(to, dir+"helm.json", revisions); err != nil {
		return err
	}
	family := &family{workloads: session.workloads(h.last(), r.Name), known: map[string]types.UID{}, uids: map[types.UID]bool{}}
	for _, w := range family.workloads {
		family.add(w.kind, &metav1.ObjectMeta{Name: w.name, UID: w.uid})
	}
	if err := s.objects(session, h.last(), dir+"objects/", to); err != nil {
		return err
	}
	pods, err := session.pods(ctx, r.Namespace, family)
	if err != nil {
		to.Failed(what+": pods", err)
		return nil
	}
	return s.pods(ctx, session, pods, seen, to)
}

// objects writes the objects of a revision as they are in the cluster.
func (s *Support) objects(session *session, r *releasev1.Release, dir string, to *support.Archive) error {
	if r == nil {
		return nil
	}
	resources, err := session.cfg.KubeClient.Build(strings.NewReader(r.Manifest), false)
	if err != nil {
		to.Failed(dir, err)
		return nil
	}
	for _, one := range resources {
		if to.Full() {
			return nil
		}
		kind := one.Mapping.GroupVersionKind.Kind
		name := dir + kind + "." + one.Name + ".json"
		// One at a time: what is not there must not hide the others.
		live, err := session.cfg.KubeClient.Get(kube.ResourceList{one}, false)
		if err != nil {
			to.Failed(name, err)
			continue
		}
		for _, objects := range live {
			for _, o := range objects {
				u, err := asUnstructured(o)
				if err != nil || u.GetName() == "" {
					continue
				}
				if err := s.put(to, name, u.DeepCopy().Object); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// allPods tells of all pods of a namespace.
func (s *Support) allPods(ctx context.Context, namespace string, seen map[types.UID]bool, to *support.Archive) error {
	session, err := s.cluster.open(ctx, namespace)
	if err != nil {
		to.Failed("pods of namespace "+namespace, err)
		return nil
	}
	list, err := session.clientset.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{Limit: maxListed})
	if err != nil {
		to.Failed("pods of namespace "+namespace, err)
		return nil
	}
	pods := make([]*corev1.Pod, 0, len(list.Items))
	for i := range list.Items {
		pods = append(pods, &list.Items[i])
	}
	return s.pods(ctx, session, pods, seen, to)
}

// pods tells of pods, and what their containers say.
func (s *Support) pods(ctx context.Context, session *session, pods []*corev1.Pod, seen map[types.UID]bool, to *support.Archive) error {
	slices.SortFunc(pods, func(a, b *corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	for _, pod := range pods {
		if pod.UID != "" && seen[pod.UID] || to.Full() {
			continue
		}
		seen[pod.UID] = true
		dir := "namespaces/" + pod.Namespace + "/pods/" + pod.Name + "/"
		if err := s.object(to, dir+"pod.json", "v1", "Pod", pod); err != nil {
			return err
		}
		if s.unread[pod.Namespace] {
			continue
		}
		for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses} {
			for i := range statuses {
				if err := s.logs(ctx, session, pod, &statuses[i], dir, to); err != nil {
					return err
				}
			}
		}
	}
	return ctx.Err()
}

// logs writes what a container says, and what it said before it was started anew.
func (s *Support) logs(ctx context.Context, session *session, pod *corev1.Pod, st *corev1.ContainerStatus, dir string, to *support.Archive) error {
	if st.State.Running != nil || st.State.Terminated != nil {
		if err := s.log(ctx, session, pod, st.Name, false, dir+st.Name+".log", to); err != nil {
			return err
		}
	}
	if st.RestartCount > 0 || st.LastTerminationState.Terminated != nil {
		return s.log(ctx, session, pod, st.Name, true, dir+st.Name+".previous.log", to)
	}
	return nil
}

func (s *Support) log(ctx context.Context, session *session, pod *corev1.Pod, container string, previous bool, name string, to *support.Archive) error {
	if to.Full() {
		return nil
	}
	lines, size := int64(supportLines), int64(supportRead)
	o := &corev1.PodLogOptions{Container: container, Previous: previous, TailLines: &lines, LimitBytes: &size, Timestamps: true}
	if s.o.Since > 0 {
		seconds := int64(max(1, s.o.Since/time.Second))
		o.SinceSeconds = &seconds
	}
	ctx, cancel := context.WithTimeout(ctx, supportWait)
	defer cancel()
	stream, err := session.clientset.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, o).Stream(ctx)
	if err != nil {
		to.Failed(name, err)
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(stream, supportRead))
	if err := firstError(err, stream.Close()); err != nil {
		to.Failed(name, err)
	}
	return to.Text(name, newestLines(text, len(text) >= supportRead, supportLog))
}

// newestLines are the last whole lines of a log, of at most limit bytes together: a part of a line could be
// a part of a secret, which nobody finds.
func newestLines(text []byte, cut bool, limit int) []byte {
	if cut {
		text = text[:bytes.LastIndexByte(text, '\n')+1]
	}
	if len(text) <= limit {
		return text
	}
	text = text[len(text)-limit:]
	return text[bytes.IndexByte(text, '\n')+1:]
}

// object writes an object of the client library.
func (s *Support) object(to *support.Archive, name, version, kind string, o runtime.Object) error {
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		to.Failed(name, err)
		return nil
	}
	m["apiVersion"], m["kind"] = version, kind
	return s.put(to, name, m)
}

// put writes an object without what is secret in it.
func (s *Support) put(to *support.Archive, name string, object map[string]any) error {
	support.Redact(object, s.o.ConfigMaps)
	return putJSON(to, name, object)
}

func putJSON(to *support.Archive, name string, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		to.Failed(name, err)
		return nil
	}
	return to.Text(name, b.Bytes())
}
