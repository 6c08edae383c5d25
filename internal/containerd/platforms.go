package containerd

import "strings"

// Plain is a platform in its shortest spelling, by which platforms can be compared: variants that are meant
// where none is named are left out, and named where they are not.
func Plain(platform string) string {
	switch platform {
	case "linux/arm64/v8":
		return "linux/arm64"
	case "linux/arm":
		return "linux/arm/v7"
	case "linux/amd64/v1":
		return "linux/amd64"
	}
	return platform
}

// Runs lists the platforms that a node of a platform runs, the best first, as Plain spells them. It is
// containerd's list (platforms.Only), by which the image manifest of an index is chosen.
func Runs(node string) []string {
	node = Plain(node)
	os, rest, _ := strings.Cut(node, "/")
	arch, variant, _ := strings.Cut(rest, "/")
	list := []string{node}
	add := func(names ...string) {
		for _, n := range names {
			list = append(list, os+"/"+n)
		}
	}
	arm := []string{"arm/v8", "arm/v7", "arm/v6", "arm/v5"}
	switch arch {
	case "amd64":
		// amd64/v3 runs v2 and what has no variant.
		if lower := map[string][]string{"v2": {"amd64"}, "v3": {"amd64/v2", "amd64"}, "v4": {"amd64/v3", "amd64/v2", "amd64"}}[variant]; lower != nil {
			add(lower...)
		}
		add("386")
	case "arm64":
		if variant != "" {
			add("arm64")
		}
		add(arm...)
	case "arm":
		for i, a := range arm {
			if a == "arm/"+variant {
				add(arm[i+1:]...)
			}
		}
	}
	return list
}
