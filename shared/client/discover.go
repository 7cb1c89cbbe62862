package client

import "context"

// FoundBMC is a BMC that a head found, and what would be set at its node.
type FoundBMC struct {
	Address string     `json:"address,omitempty"`
	MAC     string     `json:"mac,omitempty"`
	Vendor  string     `json:"vendor,omitempty"`
	Model   string     `json:"model,omitempty"`
	Serial  string     `json:"serial,omitempty"`
	UUID    string     `json:"uuid,omitempty"`
	By      []string   `json:"by"`
	Node    string     `json:"node,omitempty"`
	Why     string     `json:"why,omitempty"`
	Set     *BMCChange `json:"set,omitempty"`
	Note    string     `json:"note,omitempty"`
}

// BMCChange is a change of a node: of some of its attributes, and of its URIs.
type BMCChange struct {
	Attributes map[string]string `json:"attributes,omitempty"`
	PowerURI   string            `json:"power_uri,omitempty"`
	RedfishURI string            `json:"redfish_uri,omitempty"`
}

// Discover has the head look for BMCs. It may take a minute.
func (c *Client) Discover(ctx context.Context, networks []string, firstIP string) (out []FoundBMC, err error) {
	in := struct {
		Networks []string `json:"networks,omitempty"`
		FirstIP  string   `json:"first_ip,omitempty"`
	}{networks, firstIP}
	err = c.Call(ctx, "POST", Path("nodes", "discover"), in, &out)
	return out, err
}
