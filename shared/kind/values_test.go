package kind

import (
	"encoding/json"
	"reflect"
	"testing"

	experiment "github.com/go-json-experiment/json"
)

// Both packages by which objects are read must give the same values.
func TestValuesOfBothDecoders(t *testing.T) {
	for _, text := range []string{
		`{"v":null}`, `{"v":{}}`, `{}`, `{"v":{"a":"x","n":1.50,"big":123456789012345678901234567890,"t":true,"f":false,"null":null}}`,
		`{"v":{"deep":{"x":[1e400,{"y":null}]},"list":[],"é\u0000":"\ud83d\ude00"}}`, `{"v":[]}`, `{"v":5}`, `{"v":"x"}`,
	} {
		var a, b struct {
			V Values `json:"v"`
		}
		errA, errB := json.Unmarshal([]byte(text), &a), experiment.Unmarshal([]byte(text), &b)
		if (errA == nil) != (errB == nil) || errA == nil && !reflect.DeepEqual(a, b) {
			t.Errorf("%s: %v %v, and %v %v", text, a, errA, b, errB)
		}
	}
}
