// The connection to the service: kept up until it is stopped, whatever the network and the browser do.

import { passing } from "./caller.js";

const RETRY = 1000; // milliseconds; doubled with each failure in a row, up to
const RETRY_CAP = 60_000;
const STALE = 20_000; // milliseconds without a sign of life, after which a browser that comes back connects anew

/**
 * `connect(run)` begins each connection, `open(signal)` asks for the stream and answers with its response, `event(event, run)`
 * takes each event, `say(status)` is told how it stands, `stopped(error)` that it ended because trying again would not help. `run` is
 * a signal that aborts when the line is stopped: nothing is taken in from then on. A stream that says nothing for `silence`
 * milliseconds is dead.
 */
export class Line {
  #hooks;
  #silence;
  #run = null;
  #stream = null;
  #heard = 0;
  #failures = 0;
  #wake = null;
  #ends = [];

  constructor(hooks, silence) {
    this.#hooks = hooks;
    this.#silence = silence;
  }

  get running() {
    return this.#run !== null;
  }

  /** Resolves after the first try; rejects where the service refuses. */
  async start() {
    if (this.#run) return;
    const run = (this.#run = new AbortController());
    this.#failures = 0;
    this.#listen();
    try {
      await this.#hooks.connect(run.signal);
    } catch (error) {
      if (this.#run !== run) return;
      if (!passing(error)) {
        this.stop();
        throw error;
      }
      this.#failures = 1;
      this.#hooks.say("offline");
    }
    if (this.#run === run) this.#follow(run);
  }

  stop() {
    this.#run?.abort();
    this.#run = null;
    this.restart();
    for (const end of this.#ends.splice(0)) end();
    this.#hooks.say("offline");
  }

  /** Go on at once: with another UNSID or user, or because the network is another one. */
  restart() {
    this.#stream?.abort();
    this.#wake?.();
  }

  /** Do this when it is stopped. */
  finally(end) {
    if (this.#run) this.#ends.push(end);
    else end();
  }

  async #follow(run) {
    for (let connected = this.#failures === 0; this.#run === run; connected = false) {
      let anew = false; // by our own wish: with another user or device, or over another network
      try {
        if (!connected) await this.#hooks.connect(run.signal);
        if (this.#run === run) await this.#read(run.signal);
        anew = this.#stream.signal.aborted;
      } catch (error) {
        if (this.#run !== run) return;
        if (!passing(error)) {
          this.stop();
          return this.#hooks.stopped(error);
        }
        anew = error.name === "AbortError" || error.code === "user";
        if (!anew) this.#failures += 1;
      }
      if (this.#run !== run) return;
      if (!anew) this.#hooks.say("offline");
      if (this.#failures) await this.#pause(Math.random() * Math.min(RETRY_CAP, RETRY * 2 ** Math.min(this.#failures, 10)));
    }
  }

  async #read(run) {
    const stream = (this.#stream = new AbortController());
    this.#heard = Date.now();
    const watch = setInterval(() => Date.now() - this.#heard > this.#silence && stream.abort(), Math.min(1000, this.#silence / 4));
    try {
      const answer = await this.#hooks.open(stream.signal);
      this.#hooks.say("synchronized");
      const began = Date.now();
      for await (const event of events(answer)) {
        this.#heard = Date.now();
        this.#failures = 0;
        if (stream.signal.aborted) return; // it was another user's, or another device's
        await this.#hooks.event(event, run);
      }
      if (Date.now() - began < RETRY) this.#failures += 1; // do not ask in a circle
    } finally {
      clearInterval(watch);
    }
  }

  #pause(time) {
    return new Promise((done) => {
      const timer = setTimeout(done, time);
      this.#wake = () => {
        clearTimeout(timer);
        done();
      };
    });
  }

  /** To the browser's own events. */
  #listen() {
    const on = (target, type, act) => {
      target?.addEventListener?.(type, act);
      this.#ends.push(() => target?.removeEventListener?.(type, act));
    };
    const back = () => (Date.now() - this.#heard > STALE ? this.restart() : this.#wake?.());
    on(globalThis, "online", () => this.restart());
    on(globalThis, "offline", () => this.#stream?.abort());
    on(globalThis, "pageshow", back);
    on(globalThis.document, "visibilitychange", () => document.visibilityState === "visible" && back());
  }
}

// -- server-sent events by fetch, because EventSource cannot send a token

/** The events of a response, as they come: `{type, id, data}`; a sign of life has the type "message" and no data. */
async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).pipeThrough(bySeparator()).getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    yield parse(value);
  }
}

/** Cuts a stream of text where events end: at an empty line (HTML standard, section 9.2.6; the service ends its lines with LF). */
function bySeparator() {
  let rest = "";
  return new TransformStream({
    transform(text, controller) {
      const parts = (rest + text).split("\n\n");
      rest = parts.pop();
      for (const part of parts) controller.enqueue(part);
    },
  });
}

function parse(text) {
  const event = { type: "message", id: null, data: null };
  for (const line of text.split("\n")) {
    const colon = line.indexOf(":");
    if (colon < 1) continue; // a comment: a sign of life
    const value = line.slice(colon + 1).replace(/^ /, "");
    const field = line.slice(0, colon);
    if (field === "event") event.type = value;
    else if (field === "id") event.id = value;
    else if (field === "data") event.data = JSON.parse(value);
  }
  return event;
}
