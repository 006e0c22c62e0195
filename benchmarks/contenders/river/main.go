// Jobs that do nothing, by River on PostgreSQL: inserted one by one, worked off in the same process. `../driven.py` has the protocol.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

type job struct {
	URL                                string
	Callers, AtOnce, Requests, WarmUp int64
}

type push struct {
	User  string `json:"user"`
	Title string `json:"title"`
	Body  string `json:"body"`
}

func (push) Kind() string { return "push" }

type worker struct {
	river.WorkerDefaults[push]
}

func (worker) Work(context.Context, *river.Job[push]) error { return nil }

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
	input.Buffer(nil, 1<<20)
	input.Scan()
	var asked job
	check(json.Unmarshal(input.Bytes(), &asked))
	ctx := context.Background()
	settings, err := pgxpool.ParseConfig(asked.URL)
	check(err)
	settings.MaxConns = 20
	pool, err := pgxpool.NewWithConfig(ctx, settings)
	check(err)
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), nil)
	check(err)
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	check(err)
	workers := river.NewWorkers()
	river.AddWorker(workers, &worker{})
	// The fetching is that of River's own benchmark command.
	client, err := river.NewClient(riverpgxv5.New(pool), &river.Config{
		FetchCooldown:     2 * time.Millisecond,
		FetchPollInterval: 20 * time.Millisecond,
		Logger:            slog.New(slog.NewTextHandler(io.Discard, nil)),
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: int(asked.AtOnce)}},
		Workers:           workers,
	})
	check(err)
	check(client.Start(ctx))

	// Returns the seconds until all were inserted, and until all were completed.
	run := func(count int64) (float64, float64) {
		ended, cancel := client.SubscribeConfig(&river.SubscribeConfig{
			ChanSize: int(count), // a full one would drop events
			Kinds:    []river.EventKind{river.EventKindJobCompleted},
		})
		defer cancel()
		done := make(chan struct{})
		go func() {
			for range count {
				<-ended
			}
			close(done)
		}()
		begun := time.Now()
		var next int64
		var callers sync.WaitGroup
		for range asked.Callers {
			callers.Add(1)
			go func() {
				defer callers.Done()
				for {
					number := atomic.AddInt64(&next, 1)
					if number > count {
						return
					}
					_, err := client.Insert(ctx, push{fmt.Sprintf("u%d", number), "Storm warning", "Gale"}, nil)
					check(err)
				}
			}()
		}
		callers.Wait()
		accepted := time.Since(begun).Seconds()
		<-done
		return accepted, time.Since(begun).Seconds()
	}

	run(asked.WarmUp)
	fmt.Println("ready")
	for input.Scan() {
		before := cpu()
		accepted, wall := run(asked.Requests)
		fmt.Printf("{\"requests\": %d, \"cpu\": %f, \"wall\": %f, \"accepted\": %f}\n", asked.Requests, cpu()-before, wall, accepted)
	}
}
