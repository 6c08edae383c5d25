// Package containerd brings content and names of images into a containerd on this machine. It is the
// only door to its API, which it speaks itself, over the socket: containerd's own client library is
// several times larger than all that is used of it here.
//
// # What protects what
//
// containerd collects what nothing refers to. Content is referred to by the names of images, and by
// labels of the content that it belongs to; until those are there, a [Lease] protects it, which ends by
// itself some time after its owner was killed.
//
// # Whose names
//
// In the namespace "k8s.io" names belong to Kubernetes: its plugin (CRI) marks those that it manages, and
// gives each image one more name, its id. [Client.SetImage] with what [Labels] returns makes both like the
// plugin itself does when it pulls, so that all versions of it take them in; [Client.Sees] asks it
// whether it has.
package containerd
