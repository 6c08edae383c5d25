package chart

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// sideBySide renders the chart for two names and asks whether they can stand side by side.
func sideBySide(t *testing.T, c Colours, values string) (*Behind, []Obstacle, error) {
	t.Helper()
	ch, err := Load("../../testdata/charts/colours")
	if err != nil {
		t.Fatal(err)
	}
	merged, err := MergeValues([]ValuesFile{{Name: "v.yaml", Data: []byte(values)}})
	if err != nil {
		t.Fatal(err)
	}
	var docs [2][]byte
	for i, name := range []string{c.One, c.Two} {
		if docs[i], err = ch.Render(context.Background(), RenderOptions{Release: name, Namespace: c.Namespace, Values: merged}); err != nil {
			t.Fatal(err)
		}
	}
	return c.Eligible(docs[0], docs[1])
}

func webColours() Colours {
	return Colours{Release: "web", One: "web-blue", Two: "web-green", Namespace: "shop", FrontKind: "Service", FrontName: "web"}
}

func TestEligible(t *testing.T) {
	shares := webColours()
	shares.Shares = true
	named := webColours()
	named.Service = "*-api"
	inPlace := webColours()
	inPlace.One = "web"
	inPlace.FrontName = "www"
	for name, c := range map[string]struct {
		colours Colours
		values  string
		want    string
	}{
		"plain":                    {webColours(), "", "*"},
		"shares":                   {shares, "", "*"},
		"named service":            {named, "services: [NAME-api]", "*-api"},
		"installed in place":       {inPlace, "", "*"},
		"headless service besides": {webColours(), "extra: [{apiVersion: v1, kind: Service, metadata: {name: NAME-peers}, spec: {clusterIP: None, selector: {a: b}}}]", "*"},
		"config of its own":        {webColours(), "extra: [{apiVersion: v1, kind: ConfigMap, metadata: {name: NAME-x}}]", "*"},
		"a test":                   {webColours(), "extra: [{apiVersion: v1, kind: Pod, metadata: {name: NAME-test, annotations: {helm.sh/hook: test}}}]", "*"},
		"reads a claim":            {webColours(), "{pod: {volumes: [{name: d, persistentVolumeClaim: {claimName: data}}]}, mounts: [{name: d, mountPath: /d, readOnly: true}]}", "*"},
		"claims of its own":        {webColours(), "{pod: {volumes: [{name: d, ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce]}}}}]}, mounts: [{name: d, mountPath: /d}]}", "*"},
	} {
		t.Run(name, func(t *testing.T) {
			got, obstacles, err := sideBySide(t, c.colours, c.values)
			if err != nil || len(obstacles) > 0 || got == nil || got.Service != c.want || got.One["app.kubernetes.io/instance"] != c.colours.One || len(got.Common) != 1 && c.colours.Service == "" {
				t.Errorf("Eligible: %+v, %v, %v; want %q", got, obstacles, err, c.want)
			}
		})
	}
}

func TestEligibleObstacles(t *testing.T) {
	extra := func(object string) string { return "extra: [" + object + "]" }
	shares := webColours()
	shares.Shares = true
	named := webColours()
	named.Service = "*-nothing"
	safe := webColours()
	safe.MigrationsSafe = true
	migration := extra(`{apiVersion: batch/v1, kind: Job, metadata: {name: NAME-migrate, annotations: {helm.sh/hook: "pre-install,pre-upgrade"}}}`)
	for name, c := range map[string]struct {
		colours Colours
		values  string
		object  string
		reason  string
	}{
		"shared name":           {webColours(), extra("{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}}"), "ConfigMap/settings", "both versions would have it"},
		"shared name elsewhere": {webColours(), extra("{apiVersion: v1, kind: Secret, metadata: {name: settings, namespace: other}}"), "Secret/settings", "both versions would have it"},
		"cluster role":          {webColours(), extra("{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: NAME}}"), "ClusterRole/web-blue", "in no namespace"},
		"webhook":               {webColours(), extra("{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {name: NAME}}"), "ValidatingWebhookConfiguration/web-blue", "webhooks of both"},
		"stateful set":          {webColours(), extra("{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: NAME-db}}"), "StatefulSet/web-blue-db", "data of its own"},
		"claim":                 {webColours(), extra("{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: NAME-data}}"), "PersistentVolumeClaim/web-blue-data", "holds data"},
		"shared claim":          {webColours(), "{pod: {volumes: [{name: d, persistentVolumeClaim: {claimName: data}}]}, mounts: [{name: d, mountPath: /d}]}", "Deployment/web-blue", "write to claim data"},
		"path of the host":      {webColours(), "{pod: {volumes: [{name: d, hostPath: {path: /srv}}]}, mounts: [{name: d, mountPath: /d}]}", "Deployment/web-blue", "write to /srv of the node"},
		"network of the host":   {webColours(), "pod: {hostNetwork: true}", "Deployment/web-blue", "network of the node"},
		"port of the host":      {webColours(), extra("{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: NAME}, spec: {template: {spec: {containers: [{name: a, ports: [{containerPort: 1, hostPort: 99}]}]}}}}"), "DaemonSet/web-blue", "port 99 of the node"},
		"node port":             {webColours(), "service: {type: NodePort}", "Service/web-blue", "past the front"},
		"address":               {webColours(), "service: {type: LoadBalancer, loadBalancerIP: 192.0.2.1}", "Service/web-blue", "192.0.2.1"},
		"migration":             {webColours(), migration, "Job/web-blue-migrate", "a hook (pre-install,pre-upgrade)"},
		"job":                   {webColours(), extra("{apiVersion: batch/v1, kind: Job, metadata: {name: NAME-fill}}"), "Job/web-blue-fill", "a Job that may change"},
		"autoscaler":            {shares, extra("{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: NAME}}"), "HorizontalPodAutoscaler/web-blue", "number of pods"},
		"front":                 {webColours(), extra("{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {clusterIP: None}}"), "Service/web", "name of the front"},
		"ingress":               {webColours(), extra("{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: NAME}}"), "Ingress/web-blue", "past the front"},
		"selector":              {webColours(), "instance: false", "Service/web-blue", "does not tell the versions apart"},
		"fixed service":         {webColours(), "name: fixed", "Service/fixed", "both versions would have it"},
		"several services":      {webColours(), "services: [NAME-a, NAME-b]", "", "3 Services (web-blue, web-blue-a, web-blue-b)"},
		"no such service":       {named, "", "", `no Service "web-blue-nothing"`},
		"finds the other":       {webColours(), extra("{apiVersion: apps/v1, kind: Deployment, metadata: {name: NAME-x}, spec: {template: {metadata: {labels: {app: colours, app.kubernetes.io/instance: web-green}}}}}"), "Deployment/web-blue-x", "found by Service"},
		"others behind":         {shares, extra("{apiVersion: apps/v1, kind: Deployment, metadata: {name: NAME-x}, spec: {template: {metadata: {labels: {app: colours}}}}}"), "Deployment/web-blue-x", "all the labels (app=colours)"},
		"two workloads":         {shares, extra("{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: NAME-x}, spec: {template: {metadata: {labels: {app: colours, app.kubernetes.io/instance: NAME}}}}}"), "DaemonSet/web-blue-x", "replicas of a Deployment"},
	} {
		t.Run(name, func(t *testing.T) {
			service, obstacles, err := sideBySide(t, c.colours, c.values)
			if err != nil || service != nil {
				t.Fatalf("Eligible: %+v, %v", service, err)
			}
			for _, o := range obstacles {
				if o.Object == c.object && strings.Contains(o.Reason, c.reason) {
					return
				}
			}
			t.Errorf("obstacles %v, want %q with %q", obstacles, c.object, c.reason)
		})
	}
	if _, obstacles, err := sideBySide(t, safe, migration); err != nil || len(obstacles) > 0 {
		t.Errorf("a migration that can be gone back over: %v, %v", obstacles, err)
	}
}

// FuzzEligible: documents of others are refused or judged.
func FuzzEligible(f *testing.F) {
	f.Add("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {selector: {a: b}, ports: [{port: 1, nodePort: 3}]}", "{}")
	f.Add("apiVersion: v1\nkind: Pod\nspec: {containers: [{ports: [1, {hostPort: x}]}], volumes: [3, {hostPath: 1}]}", "a: [")
	f.Add("apiVersion: v1\nkind: List\nitems: [{kind: Service, metadata: 3}]", "kind: Service\nspec: 3")
	f.Fuzz(func(t *testing.T, one, two string) {
		c := webColours()
		c.Shares = true
		service, obstacles, err := c.Eligible([]byte(one), []byte(two))
		var manifest *ManifestError
		if err != nil && !errors.As(err, &manifest) {
			t.Errorf("error %T: %v", err, err)
		}
		if err == nil && (service == nil) != (len(obstacles) > 0) {
			t.Errorf("%+v with obstacles %v", service, obstacles)
		}
	})
}
