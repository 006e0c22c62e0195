// Web Push by SherClockHolmes/webpush-go. `../driven.py` has the protocol.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/SherClockHolmes/webpush-go"
)

type job struct {
	Ca, Subject, PublicKey, PrivateKey, Payload string
	Browsers                                    []webpush.Subscription
	AtOnce, Requests, WarmUp                    int64
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
	input.Buffer(nil, 1<<28)
	input.Scan()
	var asked job
	check(json.Unmarshal(input.Bytes(), &asked))
	certificate, err := os.ReadFile(asked.Ca)
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certificate)
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots},
		ForceAttemptHTTP2: true,
	}}
	options := &webpush.Options{
		HTTPClient:      client,
		Subscriber:      strings.TrimPrefix(asked.Subject, "mailto:"), // the library puts it before the address itself
		VAPIDPublicKey:  asked.PublicKey,
		VAPIDPrivateKey: asked.PrivateKey,
		TTL:             86400,
	}

	payload := []byte(asked.Payload)
	var next int64
	push := func(number int64) {
		browser := asked.Browsers[number%int64(len(asked.Browsers))]
		// The gateway ends a connection after so many requests; Go repeats no POST that it cut.
		answer, err := webpush.SendNotification(payload, &browser, options)
		for tries := 0; err != nil && tries < 3; tries++ {
			answer, err = webpush.SendNotification(payload, &browser, options)
		}
		check(err)
		io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
		if answer.StatusCode != 201 {
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
