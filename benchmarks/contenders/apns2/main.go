// APNs pushes by sideshow/apns2. `../driven.py` has the protocol.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sideshow/apns2"
	"github.com/sideshow/apns2/token"
	"golang.org/x/net/http2"
)

type job struct {
	URL, Ca, Key, Topic, Payload string
	AtOnce, Requests, WarmUp     int64
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func cpu() float64 {
	var usage syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

func main() {
	input := bufio.NewScanner(os.Stdin)
	input.Buffer(nil, 1<<26)
	input.Scan()
	var asked job
	check(json.Unmarshal(input.Bytes(), &asked))
	certificate, err := os.ReadFile(asked.Ca)
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certificate)
	key, err := token.AuthKeyFromBytes([]byte(asked.Key))
	check(err)
	client := apns2.NewTokenClient(&token.Token{AuthKey: key, KeyID: "ABCDE12345", TeamID: "ABCDE12345"})
	client.Host = asked.URL
	client.HTTPClient.Transport.(*http2.Transport).TLSClientConfig = &tls.Config{RootCAs: roots}

	payload := []byte(asked.Payload)
	expiration := time.Unix(1900000000, 0)
	var next int64
	push := func(number int64) {
		answer, err := client.Push(&apns2.Notification{
			ApnsID:      fmt.Sprintf("00000000-0000-5000-8000-%012x", number),
			DeviceToken: fmt.Sprintf("%064x", number),
			Topic:       asked.Topic,
			PushType:    apns2.PushTypeAlert,
			Priority:    apns2.PriorityHigh,
			Expiration:  expiration,
			Payload:     payload,
		})
		check(err)
		if !answer.Sent() {
			log.Fatalf("the gateway answered %d", answer.StatusCode)
		}
	}
	run := func(count int64) {
		end := next + count
		var workers sync.WaitGroup
		for range asked.AtOnce {
			workers.Add(1)
			go func() {
				defer workers.Done()
				for {
					number := atomic.AddInt64(&next, 1)
					if number > end {
						return
					}
					push(number)
				}
			}()
		}
		workers.Wait()
		next = end
	}

	push(0) // opens the connection that all others share
	run(asked.WarmUp)
	fmt.Println("ready")
	for input.Scan() {
		before, begun := cpu(), time.Now()
		run(asked.Requests)
		used, wall := cpu()-before, time.Since(begun).Seconds()
		fmt.Printf("{\"requests\": %d, \"cpu\": %f, \"wall\": %f}\n", asked.Requests, used, wall)
	}
}
