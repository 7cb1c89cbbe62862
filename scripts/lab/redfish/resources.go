package redfish

import (
	"maps"
	"slices"
)

// What may be said of booting and resetting.
var (
	bootEnabled = []string{"Disabled", "Once", "Continuous"}
	bootDevices = map[string]string{"None": "", "Pxe": "network", "Hdd": "disk"} // the machine's word for each
	resetTypes  = []string{"On", "ForceOn", "ForceOff", "GracefulShutdown", "PushPowerButton", "ForceRestart", "PowerCycle"}
)

type object = map[string]any

func link(path string) object { return object{"@odata.id": base + path} }

func collection(kind, path string, members ...string) any {
	list := []object{}
	for _, m := range members {
		list = append(list, link(m))
	}
	return object{"@odata.id": base + path, "@odata.type": "#" + kind + "Collection." + kind + "Collection", "Name": kind + " Collection", "Members": list, "Members@odata.count": len(list)}
}

// only is a collection of one.
func only(kind, path string) func() any {
	return func() any { return collection(kind, path, path+"/1") }
}

func resource(path, kind, id, name string, more object) any {
	out := object{"@odata.id": base + path, "@odata.type": "#" + kind, "Id": id, "Name": name}
	maps.Copy(out, more)
	return out
}

func healthy() object { return object{"State": "Enabled", "Health": "OK"} }

func (s *Service) state() string {
	if s.machine.On() {
		return "On"
	}
	return "Off"
}

func (s *Service) root() any {
	return resource("/", "ServiceRoot.v1_15_0.ServiceRoot", "RootService", "Root Service", object{
		"RedfishVersion": "1.15.0", "UUID": s.id.UUID, "Product": "muster lab",
		"Systems": link("/Systems"), "Managers": link("/Managers"), "Chassis": link("/Chassis"),
		"SessionService": link("/SessionService"), "EventService": link("/EventService"),
		"Links": object{"Sessions": link("/SessionService/Sessions")},
	})
}

func (s *Service) sessionService() any {
	return resource("/SessionService", "SessionService.v1_1_8.SessionService", "SessionService", "Session Service", object{
		"ServiceEnabled": true, "SessionTimeout": 1800, "Status": healthy(), "Sessions": link("/SessionService/Sessions"),
	})
}

func (s *Service) listSessions() any {
	s.mu.Lock()
	defer s.mu.Unlock()
	var paths []string
	for token := range s.sessions {
		paths = append(paths, "/SessionService/Sessions/"+sessionID(token))
	}
	slices.Sort(paths)
	return collection("Session", "/SessionService/Sessions", paths...)
}

func (s *Service) system() any {
	state := s.state()
	enabled, target := s.override()
	s.mu.Lock()
	defer s.mu.Unlock()
	return resource("/Systems/1", "ComputerSystem.v1_20_0.ComputerSystem", "1", "Machine", object{
		"SystemType": "Physical", "Manufacturer": "QEMU", "Model": "Lab machine", "SerialNumber": s.id.Serial, "UUID": s.id.UUID,
		"PowerState": state, "Status": healthy(), "IndicatorLED": s.led,
		"Boot": object{
			"BootSourceOverrideEnabled": enabled, "BootSourceOverrideTarget": target,
			"BootSourceOverrideTarget@Redfish.AllowableValues": slices.Sorted(maps.Keys(bootDevices)),
		},
		"Links":   object{"Chassis": []object{link("/Chassis/1")}, "ManagedBy": []object{link("/Managers/1")}},
		"Actions": object{"#ComputerSystem.Reset": object{"target": base + "/Systems/1/Actions/ComputerSystem.Reset", "ResetType@Redfish.AllowableValues": resetTypes}},
	})
}

func (s *Service) manager() any {
	return resource("/Managers/1", "Manager.v1_18_0.Manager", "1", "BMC", object{
		"ManagerType": "BMC", "Model": "muster lab", "FirmwareVersion": "1.0", "PowerState": "On", "Status": healthy(),
		"Links":   object{"ManagerForServers": []object{link("/Systems/1")}, "ManagerForChassis": []object{link("/Chassis/1")}},
		"Actions": object{"#Manager.Reset": object{"target": base + "/Managers/1/Actions/Manager.Reset", "ResetType@Redfish.AllowableValues": []string{"GracefulRestart", "ForceRestart"}}},
	})
}

func (s *Service) chassis() any {
	return resource("/Chassis/1", "Chassis.v1_23_0.Chassis", "1", "Chassis", object{
		"ChassisType": "RackMount", "Manufacturer": "QEMU", "SerialNumber": s.id.Serial, "Status": healthy(), "PowerState": s.state(),
		"Power": link("/Chassis/1/Power"), "Thermal": link("/Chassis/1/Thermal"),
		"Links": object{"ComputerSystems": []object{link("/Systems/1")}, "ManagedBy": []object{link("/Managers/1")}},
	})
}

func (s *Service) power() any {
	watts := map[string]int{"On": 60, "Off": 5}[s.state()]
	return resource("/Chassis/1/Power", "Power.v1_7_1.Power", "Power", "Power", object{
		"PowerControl": []object{{"@odata.id": base + "/Chassis/1/Power#/PowerControl/0", "MemberId": "0", "Name": "Machine", "PowerConsumedWatts": watts, "Status": healthy()}},
	})
}

func (s *Service) thermal() any {
	celsius := map[string]int{"On": 40, "Off": 22}[s.state()]
	return resource("/Chassis/1/Thermal", "Thermal.v1_7_1.Thermal", "Thermal", "Thermal", object{
		"Temperatures": []object{{"@odata.id": base + "/Chassis/1/Thermal#/Temperatures/0", "MemberId": "0", "Name": "CPU", "ReadingCelsius": celsius, "Status": healthy()}},
		"Fans":         []object{},
	})
}
