package release

import (
	"errors"
	"reflect"
	"testing"
)

func TestNodes(t *testing.T) {
	f := newFake(t)
	var unreachable *UnreachableError
	if _, err := f.Nodes(t.Context()); !errors.As(err, &unreachable) {
		t.Errorf("no answer: %v", err)
	}
	f.mu.Lock()
	f.api["/api/v1/nodes"] = `{"kind":"NodeList","apiVersion":"v1","items":[
		{"metadata":{"name":"b"}},
		{"metadata":{"name":"a","labels":{"kubernetes.io/hostname":"host-a"}},"status":{
			"addresses":[{"type":"InternalIP","address":"192.0.2.1"},{"type":"Hostname","address":"a.example"},{"type":"ExternalIP","address":"2001:db8::1"}],
			"nodeInfo":{"machineID":"m","systemUUID":"s","containerRuntimeVersion":"containerd://2.1.4"}}}]}`
	f.mu.Unlock()
	got, err := f.Nodes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []Node{
		{Name: "a", Hosts: []string{"host-a", "a.example"}, IPs: []string{"192.0.2.1", "2001:db8::1"}, MachineID: "m", SystemUUID: "s", Runtime: "containerd://2.1.4"},
		{Name: "b"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
