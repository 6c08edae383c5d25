package chart

import (
	"errors"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// changesText is what tests compare: a line for each object, and for each field.
func changesText(changes []ObjectChange) string {
	var b strings.Builder
	for _, c := range changes {
		b.WriteString(c.Action + " " + c.APIVersion + " " + c.Object + "\n")
		for _, f := range c.Fields {
			b.WriteString("  " + f.Path + ": " + f.Old + " -> " + f.New + "\n")
		}
		if c.More > 0 {
			b.WriteString("  more: " + strconv.Itoa(c.More) + "\n")
		}
	}
	return b.String()
}

func TestCompareObjects(t *testing.T) {
	const deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 1\n  template:\n    spec:\n      containers:\n"
	const secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n"
	for name, c := range map[string]struct{ old, now, want string }{
		"nothing": {"", "# nothing\n---\n", ""},
		"same, written otherwise": {
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x: 'y'}\n",
			"kind: ConfigMap\napiVersion: \"v1\"\ndata:\n  x: y\nmetadata:\n  name: a\n", "",
		},
		"order of objects": {
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n",
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n", "",
		},
		"added and removed": {
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: n}\n",
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b, namespace: other}\n",
			"added v1 ConfigMap/other/b\nremoved v1 ConfigMap/shop/a\nremoved v1 Namespace/n\n",
		},
		"the release's namespace is that of objects without one": {
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, namespace: shop}\n",
			"changed v1 ConfigMap/shop/a\n  metadata.namespace:  -> shop\n",
		},
		"another version of the API": {
			"apiVersion: batch/v1beta1\nkind: CronJob\nmetadata: {name: a}\n", "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: a}\n",
			"changed batch/v1 CronJob/shop/a\n  apiVersion: batch/v1beta1 -> batch/v1\n",
		},
		"another group": {
			"apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata: {name: a}\n", "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: a}\n",
			"added networking.k8s.io/v1 Ingress/shop/a\nremoved extensions/v1beta1 Ingress/shop/a\n",
		},
		"containers by their names": {
			deployment + "      - {name: b, image: b:1}\n      - {name: web, image: 'web:1', args: [a, b]}\n",
			deployment + "      - {name: web, image: 'web:2', args: [a, c, d]}\n      - {name: x, image: x:1}\n",
			"changed apps/v1 Deployment/shop/web\n" +
				"  spec.template.spec.containers[web].image: web:1 -> web:2\n" +
				"  spec.template.spec.containers[web].args[1]: b -> c\n" +
				"  spec.template.spec.containers[web].args[2]:  -> d\n" +
				"  spec.template.spec.containers[x]:  -> {name: x, image: \"x:1\"}\n" +
				"  spec.template.spec.containers[b]: {name: b, image: \"b:1\"} -> \n",
		},
		"another order means something": {
			deployment + "      - {name: a}\n      - {name: b}\n", deployment + "      - {name: b}\n      - {name: a}\n",
			"changed apps/v1 Deployment/shop/web\n  spec.template.spec.containers[0].name: a -> b\n  spec.template.spec.containers[1].name: b -> a\n",
		},
		"types and empty texts": {
			"apiVersion: x.example/v1\nkind: X\nmetadata: {name: a}\nspec: {a: 1, b: '', c: 'true', d: null, e: ' x', f: {}}\n",
			"apiVersion: x.example/v1\nkind: X\nmetadata: {name: a}\nspec: {a: '1', b: null, c: true, d: {}, e: \"x\\ny\", f: []}\n",
			"changed x.example/v1 X/shop/a\n  spec.a: 1 -> \"1\"\n  spec.b: \"\" -> null\n  spec.c: \"true\" -> true\n  spec.d: null -> {}\n  spec.e: \" x\" -> \"x\\ny\"\n  spec.f: {} -> []\n",
		},
		"keys that need quotes": {
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, annotations: {a.example/b: x}}\n",
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, annotations: {a.example/b: y}}\n",
			"changed v1 ConfigMap/shop/a\n  metadata.annotations[\"a.example/b\"]: x -> y\n",
		},
		"secrets": {
			secret + "type: Opaque\ndata: {a: b2xk, b: c2FtZQ==, gone: Z29uZQ==}\n",
			secret + "type: other\ndata: {a: bmV3, b: c2FtZQ==}\nstringData: {plain: hunter2}\n",
			"changed v1 Secret/shop/s\n  type: Opaque -> other\n  data.a: (secret) -> (secret)\n  data.gone: (secret) -> \n  stringData.plain:  -> (secret)\n",
		},
		"a secret that is none": {
			secret + "data: hunter1\n", secret + "data: [hunter2]\n",
			"changed v1 Secret/shop/s\n  data: (secret) -> (secret)\n",
		},
		"secrets in a list": {
			"apiVersion: v1\nkind: SecretList\nitems:\n- metadata: {name: s}\n  data: {a: b2xk}\n",
			"apiVersion: v1\nkind: SecretList\nitems:\n- metadata: {name: s}\n  data: {a: bmV3}\n",
			"changed  /shop/s\n  data.a: (secret) -> (secret)\n",
		},
		"the word for secrets": {
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x: (secret)}\n", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x: y}\n",
			"changed v1 ConfigMap/shop/a\n  data.x: \"(secret)\" -> y\n",
		},
		"one name twice": {
			"apiVersion: v1\nkind: Pod\nmetadata: {generateName: p-}\nspec: {a: 1}\n---\napiVersion: v1\nkind: Pod\nmetadata: {generateName: p-}\nspec: {a: 2}\n",
			"apiVersion: v1\nkind: Pod\nmetadata: {generateName: p-}\nspec: {a: 1}\n",
			"removed v1 Pod/shop/p-\n",
		},
		"a key twice: the last counts": {
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x: 1, x: 2}\n", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x: 2}\n", "",
		},
		"anchors": {
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x: &x v, y: *x}\n", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x: v, y: w}\n",
			"changed v1 ConfigMap/shop/a\n  data.y: v -> w\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			changes, err := CompareObjects([]byte(c.old), []byte(c.now), "shop")
			if err != nil {
				t.Fatal(err)
			}
			if got := changesText(changes); got != c.want {
				t.Errorf("got\n%swant\n%s", got, c.want)
			}
			if changes == nil {
				t.Error("the list is nil")
			}
		})
	}
}

func TestCompareObjectsIsBounded(t *testing.T) {
	var old, now strings.Builder
	for _, b := range []*strings.Builder{&old, &now} {
		b.WriteString("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n")
	}
	for i := range 300 {
		old.WriteString("  k" + strconv.Itoa(i) + ": a\n")
		now.WriteString("  k" + strconv.Itoa(i) + ": " + strings.Repeat("ä", 1000) + "\n")
	}
	changes, err := CompareObjects([]byte(old.String()), []byte(now.String()), "shop")
	if err != nil || len(changes) != 1 {
		t.Fatalf("%v, %v", changes, err)
	}
	c := changes[0]
	if len(c.Fields) != maxFields || c.More != 300-maxFields {
		t.Errorf("%d fields and %d more", len(c.Fields), c.More)
	}
	if f := c.Fields[0]; len(f.New) > maxShown+len("…") || !strings.HasSuffix(f.New, "ä…") || f.Path != "data.k0" {
		t.Errorf("%q: %q", f.Path, f.New)
	}
}

func TestCompareObjectsRefusesWhatIsNone(t *testing.T) {
	good := []byte("apiVersion: v1\nkind: ConfigMap\n")
	for _, bad := range []string{"[]", "a: [", "\xff", "a: &a [*a]", "kind: XList\nitems: [x]\n"} {
		var me *ManifestError
		if _, err := CompareObjects([]byte(bad), good, "x"); !errors.As(err, &me) {
			t.Errorf("old %q: %v", bad, err)
		}
		if _, err := CompareObjects(good, []byte(bad), "x"); !errors.As(err, &me) {
			t.Errorf("new %q: %v", bad, err)
		}
	}
}

// FuzzCompareObjects: nothing panics, a stream does not differ from itself, what one direction adds the
// other one removes, and no value of a Secret is shown.
func FuzzCompareObjects(f *testing.F) {
	f.Add("kind: Secret\nmetadata: {name: a}\ndata: {x: hunter2}\n", "kind: Secret\nmetadata: {name: a}\ndata: {x: hunter3}\n")
	f.Add("kind: A\nspec: [{name: a}, {name: b}]\n---\nkind: B\n", "kind: A\nspec: [{name: b}, {name: a, c: {d: 1}}]\n")
	f.Add("? [a]\n: b\n", "? {a: b}\n: c\n")
	f.Add("kind: XList\nitems: [{kind: Secret, data: hunter2}]\n", "a: &a 1\nb: *a\n<<: {c: d}\n")
	f.Fuzz(func(t *testing.T, old, now string) {
		changes, err := CompareObjects([]byte(old), []byte(now), "shop")
		back, errBack := CompareObjects([]byte(now), []byte(old), "shop")
		if (err == nil) != (errBack == nil) {
			t.Fatalf("%v one way, %v the other", err, errBack)
		}
		if err != nil {
			return
		}
		if same, err := CompareObjects([]byte(now), []byte(now), "shop"); err != nil || len(same) != 0 {
			t.Fatalf("differs from itself: %v, %v", same, err)
		}
		count := func(changes []ObjectChange) map[string]int {
			n := map[string]int{}
			for _, c := range changes {
				n[c.Action]++
				for _, f := range c.Fields {
					secret := strings.HasPrefix(c.Object, "Secret/") && (strings.HasPrefix(f.Path, "data.") || strings.HasPrefix(f.Path, "stringData."))
					if secret && (f.Old != "" && f.Old != SecretValue || f.New != "" && f.New != SecretValue) {
						t.Fatalf("shown: %+v", f)
					}
				}
			}
			return n
		}
		there, andBack := count(changes), count(back)
		there[ObjectAdded], there[ObjectRemoved] = there[ObjectRemoved], there[ObjectAdded]
		for _, n := range []map[string]int{there, andBack} {
			for k, v := range n {
				if v == 0 {
					delete(n, k)
				}
			}
		}
		if !reflect.DeepEqual(there, andBack) {
			t.Fatalf("%v one way, %v the other", there, andBack)
		}
	})
}
