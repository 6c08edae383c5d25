package chart

// Pull is an image of a container, or of a volume, and when a kubelet is to pull it.
type Pull struct {
	// Object is "Kind/name", Path the place of the image in it.
	Object, Path string
	// Image is as it is written; Policy is empty where none is.
	Image, Policy string
}

// Pulls lists the images of the pods and pod templates in rendered documents, of custom resources that
// embed those too, and their pull policies. Errors are *[ManifestError].
func Pulls(docs []byte) ([]Pull, error) {
	objects, err := clientObjects(docs)
	if err != nil {
		return nil, err
	}
	var pulls []Pull
	for _, o := range objects {
		name := o.GetName()
		if name == "" {
			name = o.GetGenerateName()
		}
		podSpecs(o.Object, nil, "", func(spec, _ map[string]any, path string, _ bool) {
			add := func(image, policy any, path string) {
				p := Pull{Object: o.GetKind() + "/" + name, Path: path}
				p.Image, _ = image.(string)
				p.Policy, _ = policy.(string)
				if p.Image != "" {
					pulls = append(pulls, p)
				}
			}
			for _, list := range []string{"initContainers", "containers", "ephemeralContainers"} {
				eachMapping(spec[list], func(i int, c map[string]any) {
					add(c["image"], c["imagePullPolicy"], joinIndex(join(path, list), i)+".image")
				})
			}
			eachMapping(spec["volumes"], func(i int, v map[string]any) {
				if source, ok := v["image"].(map[string]any); ok {
					add(source["reference"], source["pullPolicy"], joinIndex(join(path, "volumes"), i)+".image.reference")
				}
			})
		})
	}
	return pulls, nil
}

// eachMapping calls f for the mappings of a list.
func eachMapping(list any, f func(i int, item map[string]any)) {
	items, _ := list.([]any)
	for i, item := range items {
		if m, ok := item.(map[string]any); ok {
			f(i, m)
		}
	}
}
