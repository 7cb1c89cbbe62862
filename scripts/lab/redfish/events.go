package redfish

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// subscriptions are who is told of events, guarded by Service.mu.
type subscriptions struct {
	last int
	to   map[string]subscription
}

type subscription struct{ Destination, Context, Protocol string }

// Bounds of subscriptions, and of the time that an event takes to deliver.
const (
	maxSubscriptions = 8
	deliverTime      = 5 * time.Second
)

const subscriptionsPath = "/EventService/Subscriptions"

func (s *Service) eventService() any {
	return resource("/EventService", "EventService.v1_9_0.EventService", "EventService", "Event Service", object{
		"ServiceEnabled": true, "DeliveryRetryAttempts": 0, "Status": healthy(), "EventTypesForSubscription": []string{"Alert"},
		"Subscriptions": link(subscriptionsPath),
	})
}

func (s *Service) listSubscriptions() any {
	s.mu.Lock()
	defer s.mu.Unlock()
	var paths []string
	for id := range s.events.to {
		paths = append(paths, subscriptionsPath+"/"+id)
	}
	return collection("EventDestination", subscriptionsPath, paths...)
}

func (s *Service) subscribe(w http.ResponseWriter, r *http.Request) {
	var in subscription
	err := json.NewDecoder(r.Body).Decode(&in)
	to, bad := url.Parse(in.Destination)
	if err != nil || bad != nil || to.Host == "" || in.Protocol != "Redfish" {
		refuse(w, http.StatusBadRequest, "PropertyValueFormatError", "A subscription has a Destination, a URL, and the Protocol Redfish.")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.events.to) >= maxSubscriptions {
		refuse(w, http.StatusServiceUnavailable, "EventSubscriptionLimitExceeded", "There are too many subscriptions.")
		return
	}
	if s.events.to == nil {
		s.events.to = map[string]subscription{}
	}
	s.events.last++
	id := fmt.Sprint(s.events.last)
	s.events.to[id] = in
	w.Header().Set("Location", base+subscriptionsPath+"/"+id)
	w.WriteHeader(http.StatusCreated)
}

func (s *Service) getSubscription(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := r.PathValue("id")
	to, ok := s.events.to[id]
	if !ok {
		refuse(w, http.StatusNotFound, "ResourceMissingAtURI", "There is no such subscription.")
		return
	}
	send(w, http.StatusOK, resource(subscriptionsPath+"/"+id, "EventDestination.v1_13_0.EventDestination", id, "Subscription "+id,
		object{"Destination": to.Destination, "Context": to.Context, "Protocol": to.Protocol}))
}

func (s *Service) unsubscribe(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := r.PathValue("id")
	if _, ok := s.events.to[id]; !ok {
		refuse(w, http.StatusNotFound, "ResourceMissingAtURI", "There is no such subscription.")
		return
	}
	delete(s.events.to, id)
	w.WriteHeader(http.StatusNoContent)
}

// tell sends an event to those who asked for it, each once.
func (s *Service) tell(reset string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, to := range s.events.to {
		event, err := json.Marshal(object{
			"@odata.type": "#Event.v1_9_0.Event", "Id": "1", "Name": "Event", "Context": to.Context,
			"Events": []object{{"EventType": "Alert", "MemberId": "0", "EventTimestamp": time.Now().Format(time.RFC3339), "Severity": "OK",
				"MessageId": "ResourceEvent.1.3.ResourceChanged", "Message": "The machine was told " + reset + ".", "OriginOfCondition": link("/Systems/1")}},
		})
		if err != nil {
			return
		}
		go func() {
			c := http.Client{Timeout: deliverTime}
			if resp, err := c.Post(to.Destination, "application/json", bytes.NewReader(event)); err == nil {
				resp.Body.Close()
			}
		}()
	}
}
