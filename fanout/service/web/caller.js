// Requests with the token of whoever is signed in, and only with hers.

import "./store.js";

const store = globalThis.fanoutStore;
const PATIENCE = 30_000; // milliseconds for an answer
const REVOKED = ["device", "unsid"]; // reasons that say: this device's subscription is no more

/** A refusal by the service. `status` is HTTP's, `code` Microsoft Graph's word for it, `reason` a word by which a program decides. */
export class FanoutError extends Error {
  constructor(status, code, message, reason = "") {
    super(message);
    this.name = "FanoutError";
    this.status = status;
    this.code = code;
    this.reason = reason;
  }
}

/** Whether trying again later may help. A request without a status never reached the service. */
export const passing = ({ status }) => !status || status === 408 || status === 429 || status >= 500;

/**
 * `became(user)` is told when the token turns out to be another user's, before anything is sent with it; `refused()` when a token was
 * refused although it was asked for anew; `lost(unsid)` when the service does not know the device any more.
 */
export class Caller {
  #token;
  #bearer = null;
  #hooks;

  constructor(service, token, at, hooks) {
    this.service = service;
    this.at = at;
    this.user = null;
    this.#token = token;
    this.#hooks = hooks;
  }

  /** The token is good no more. */
  drop() {
    this.#bearer = null;
  }

  /** The user is known, and so is her stored data. */
  async known() {
    if (this.user === null) await this.#sign(false);
  }

  /** One request as the user who is signed in; `headers` are sent too, `unsid` says as which device. */
  async call(method, path, { body, headers = {}, unsid = null } = {}) {
    const user = this.user;
    const answer = await this.fetch(path, { method, body, headers, unsid });
    const found = answer.status === 204 ? null : await answer.json();
    if (user !== null && this.user !== user) throw new FanoutError(0, "user", "Another user has signed in.");
    return found;
  }

  /** A refused token is asked for anew, once. Where the new one is another user's, nothing is sent with it. */
  async fetch(path, options) {
    const user = this.user;
    for (let attempt = 0; ; attempt++) {
      if (this.#bearer === null) await this.#sign(attempt > 0);
      if (user !== null && this.user !== user) throw new FanoutError(0, "user", "Another user has signed in.");
      try {
        return await this.#request(path, { ...options, bearer: this.#bearer });
      } catch (error) {
        if (error.status === 401) {
          this.#bearer = null;
          if (attempt === 0 && typeof this.#token === "function") continue;
          this.#hooks.refused();
        } else if (error.status === 403 && options.unsid && REVOKED.includes(error.reason)) {
          await this.#hooks.lost(options.unsid); // ended elsewhere: go on without, and subscribe again
          options = { ...options, unsid: null };
          continue;
        }
        throw error;
      }
    }
  }

  /** Ask for a token, and for its user. The kept one tells that without a request. */
  async #sign(renew) {
    this.at ??= await store.place();
    await store.keep(this.at, "", { service: this.service });
    for (let again = renew; ; again = true) {
      const bearer = typeof this.#token === "function" ? await this.#token({ renew: again }) : this.#token;
      const last = this.user ?? (await store.kept(this.at, "", "user"));
      let user = last !== null && (await store.kept(this.at, last, "bearer")) === bearer ? last : null;
      try {
        user ??= (await this.#request("/v1/me", { bearer }).then((answer) => answer.json())).key;
      } catch (error) {
        if (error.status === 401 && !again && typeof this.#token === "function") continue;
        if (error.status === 401) this.#hooks.refused();
        throw error;
      }
      if (user !== this.user) await this.#hooks.became(user);
      this.user = user;
      this.#bearer = bearer;
      await store.keep(this.at, user, { bearer });
      return;
    }
  }

  async #request(path, { method = "GET", body, headers = {}, unsid = null, bearer, signal = AbortSignal.timeout(PATIENCE) }) {
    const all = { authorization: `Bearer ${bearer}`, ...headers };
    if (unsid) all["x-uns-id"] = unsid;
    if (body !== undefined) all["content-type"] = "application/json";
    const options = { method, headers: all, body: body === undefined ? undefined : JSON.stringify(body), signal, cache: "no-store" };
    const answer = await fetch(this.service + path, options);
    if (answer.ok) return answer;
    const refusal = (await answer.json().catch(() => ({}))).error ?? {};
    const reason = refusal.innerError?.code ?? "";
    throw new FanoutError(answer.status, refusal.code ?? "", refusal.message ?? `The service answered ${answer.status}.`, reason);
  }
}
