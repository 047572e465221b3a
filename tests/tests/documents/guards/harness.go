// A shop behind the guard. Arguments: the port.
package main

import (
	"fmt"
	"net/http"
	"os"

	"guarded/shadowguard"
)

func main() {
	effects := 0
	sendMail := func() error {
		effects++
		return nil
	}
	shop := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPost:
			if shadowguard.Outward(sendMail) != nil {
				panic("the mail was not sent")
			}
			w.WriteHeader(http.StatusCreated)
		case r.URL.Path == "/effects":
			fmt.Fprint(w, effects)
		}
	})
	panic(http.ListenAndServe("127.0.0.1:"+os.Args[1], shadowguard.Guard(shop, "/orders")))
}
