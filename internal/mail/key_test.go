package mail

import "testing"

func TestKey(t *testing.T) {
	for id, want := range map[ID]bool{
		"F47AC10B-58CC-4372-A567-0E02B2C3D479.1":          true,
		"F47AC10B-58CC-4372-A567-0E02B2C3D479.4294967295": true,
		NewID(NewConnectionID(), 3):                       true,
		"F47AC10B-58CC-4372-A567-0E02B2C3D479.4294967296": false,
		"F47AC10B-58CC-4372-A567-0E02B2C3D479.01":         false,
		"F47AC10B-58CC-4372-A567-0E02B2C3D479.":           false,
		"F47AC10B-58CC-4372-A567-0E02B2C3D479":            false,
		"f47ac10b-58cc-4372-a567-0e02b2c3d479.1":          false,
		"F47AC10B.58CC.4372.A567.0E02B2C3D479.1":          false,
		"00000000-0000-0000-0000-000000000000.1":          false,
		"G47AC10B-58CC-4372-A567-0E02B2C3D479.1":          false,
		"F47AC10B-58CC-4372-A567-0E02B2C3D479.1.1":        false,
		"": false,
		"F47AC10B-58CC-4372-A567-0E02B2C3D479.+1":          false,
		"F47AC10B-58CC-4372-A567-0E02B2C3D479.99999999999": false,
	} {
		k, ok := id.Key()
		if ok != want || ok && k.ID() != id {
			t.Errorf("%q: %v, %q", id, ok, k.ID())
		}
	}
}
