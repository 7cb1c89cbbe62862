package apitest_test

import (
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"muster/controller/api/apitest"
)

func TestDocumentIsOpenAPI(t *testing.T) {
	h := apitest.Start(t, apitest.Options{})
	doc, err := openapi3.NewLoader().LoadFromData(h.Do("GET", "/openapi.json", nil).Raw)
	if err != nil {
		t.Fatal(err)
	}
	if !doc.IsOpenAPI31OrLater() {
		t.Errorf("version %s", doc.OpenAPI)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Error(err)
	}
	ids, operations := map[string]bool{}, 0
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			operations++
			if ids[op.OperationID] {
				t.Errorf("the operation ID %s is not unique", op.OperationID)
			}
			ids[op.OperationID] = true
			if op.Summary == "" || op.Responses.Status(200) == nil || op.Responses.Default() == nil {
				t.Errorf("%s %s is not described", method, path)
			}
		}
	}
	if operations < 60 {
		t.Errorf("%d operations only", operations)
	}
}
