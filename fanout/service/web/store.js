// This browser's copy of the feed, by user: items, how far they are known, and the changes that the service has not confirmed yet.
//
// The module of pages and the service worker share it, so it is a script that is both: it defines `fanoutStore` and exports nothing.
// A user is the key that `GET /v1/me` answers; data of the browser itself is kept under "". In IndexedDB, or in memory where the
// browser has none to give (then `persistent` is false, and unsent changes die with the page).

globalThis.fanoutStore ??= (() => {
  const TABLES = ["values", "items", "unsent"];
  const GRAVES = 86_400; // seconds for which a deleted item is remembered, so that a late answer does not bring it back

  // -- the two places to keep things. A row has a `key`, which begins with its user's; `run` is one transaction.

  function indexed(name) {
    let opened = null;
    const asked = (request) =>
      new Promise((done, failed) => {
        request.onsuccess = () => done(request.result);
        request.onerror = () => failed(request.error);
      });
    const open = () =>
      (opened ??= new Promise((done, failed) => {
        const request = indexedDB.open(name, 1);
        request.onupgradeneeded = () => TABLES.forEach((table) => request.result.createObjectStore(table, { keyPath: "key" }));
        request.onerror = () => failed(request.error);
        request.onsuccess = () => {
          const database = request.result;
          database.onclose = database.onversionchange = () => {
            database.close();
            opened = null;
          };
          done(database);
        };
      }).catch((error) => {
        opened = null;
        throw error;
      }));
    return {
      persistent: true,
      open,
      async run(work) {
        const transaction = (await open()).transaction(TABLES, "readwrite");
        const ended = new Promise((done, failed) => {
          transaction.oncomplete = () => done();
          transaction.onabort = transaction.onerror = () => failed(transaction.error);
        });
        ended.catch(() => {});
        const of = (table) => transaction.objectStore(table);
        const found = await work({
          get: (table, key) => asked(of(table).get(key)),
          // "0" follows "/"
          all: (table, user) => asked(of(table).getAll(user === null ? undefined : IDBKeyRange.bound(`${user}/`, `${user}0`, false, true))),
          put: (table, row) => void of(table).put(row),
          delete: (table, key) => void of(table).delete(key),
        });
        await ended;
        return found;
      },
    };
  }

  function memory() {
    const tables = new Map(TABLES.map((table) => [table, new Map()]));
    let last = Promise.resolve();
    const face = {
      get: async (table, key) => structuredClone(tables.get(table).get(key)),
      all: async (table, user) => structuredClone([...tables.get(table).values()].filter(({ key }) => user === null || key.startsWith(`${user}/`))),
      put: (table, row) => void tables.get(table).set(row.key, structuredClone(row)),
      delete: (table, key) => void tables.get(table).delete(key),
    };
    return {
      persistent: false,
      run: (work) => {
        const mine = last.then(() => work(face));
        last = mine.catch(() => {});
        return mine;
      },
    };
  }

  let chosen = null;

  /** Where this browser keeps things. */
  function place() {
    chosen ??= (async () => {
      const found = typeof indexedDB === "undefined" ? null : indexed("fanout");
      return found && (await found.open().then(() => found, () => null)) || memory();
    })();
    return chosen;
  }

  // -- values

  async function kept(at, user, ...names) {
    const rows = await at.run((rows) => Promise.all(names.map((name) => rows.get("values", `${user}/${name}`))));
    const found = rows.map((row) => row?.value ?? null);
    return names.length === 1 ? found[0] : found;
  }

  /** Values by their names; null forgets one. */
  function keep(at, user, values) {
    return at.run(async (rows) => {
      for (const [name, value] of Object.entries(values)) {
        if (value === null) rows.delete("values", `${user}/${name}`);
        else rows.put("values", { key: `${user}/${name}`, value });
      }
    });
  }

  // -- items

  const number = (item) => Number(item.etag.slice(1, -1)); // grows with each change of an item

  /** Whether the item is news after what was known before. A missing item is news, under the number that it had. */
  const newer = (before, item) =>
    !before || number(before) < number(item) || (number(before) === number(item) && item.status === "deleted" && before.status !== "deleted");

  /** Keep items as the service has them, never an older state over a newer one, and the cursor up to which everything is known. */
  function take(at, user, items, cursor = null) {
    return at.run(async (rows) => {
      for (const item of items) {
        const key = `${user}/${item.id}`;
        const before = await rows.get("items", key);
        if (newer(before?.item, item)) rows.put("items", { key, item });
      }
      const last = cursor && (await rows.get("values", `${user}/cursor`));
      if (cursor && !(last?.value > cursor)) rows.put("values", { key: `${user}/cursor`, value: cursor });
    });
  }

  /** All items of a user's and the changes that wait. Items whose time has passed are dropped. */
  function load(at, user, now = Date.now() / 1000) {
    return at.run(async (rows) => {
      const items = [];
      for (const { key, item } of await rows.all("items", user)) {
        const over = item.status === "deleted" ? (item.modified_at ?? 0) + GRAVES <= now : item.expires_at <= now;
        if (over) rows.delete("items", key);
        else items.push(item);
      }
      return { items, unsent: (await rows.all("unsent", user)).map((row) => row.change) };
    });
  }

  /** These items and the changes that wait for them, as they are kept. */
  function look(at, user, ids) {
    const row = (rows, table, id) => rows.get(table, `${user}/${id}`);
    return at.run((rows) =>
      Promise.all(
        ids.map(async (id) => {
          const [item, waiting] = await Promise.all([row(rows, "items", id), row(rows, "unsent", id)]);
          return { id, item: item?.item ?? null, change: waiting?.change ?? null };
        }),
      ),
    );
  }

  /** The changes that wait. */
  const waiting = (at, user) => at.run(async (rows) => (await rows.all("unsent", user)).map((row) => row.change));

  /** The users for whom something waits. */
  const users = (at) => at.run(async (rows) => [...new Set((await rows.all("unsent", null)).map((row) => row.key.split("/")[0]))]);

  /** Forget the items; unsent changes stay, and so does the user of this device. */
  function forget(at, user) {
    return at.run(async (rows) => {
      for (const { key } of await rows.all("items", user)) rows.delete("items", key);
      rows.delete("values", `${user}/cursor`);
    });
  }

  // -- changes that the service has not confirmed. Pure: a change is {item, set, remove, was, etag, content, doubt, tried, turn}.
  // `doubt`: an answer was lost, and it may have been done; `tried` are the values of which that may be so, by property.

  const states = ({ read, action }) => ({ read, action });
  const same = (one, other) => one.read === other.read && one.action === other.action;

  /**
   * The change that waits for an item after the user wants one more thing of it. `served` is the item as the service last told it (null:
   * not known here), as the user saw it.
   */
  function merged(waiting, id, wanted, served) {
    const change = waiting ? { ...waiting } : { item: id, set: {}, remove: false, was: null, etag: null, content: null, doubt: false, tried: {}, turn: 0 };
    if (served && !change.doubt) {
      change.was = { ...states(served), ...(waiting ? pick(waiting.was, waiting.set) : {}) };
      change.etag = served.etag;
      change.content = JSON.stringify(served.content);
    }
    if (wanted.remove) change.remove = true;
    else {
      change.set = { ...change.set, ...wanted };
      if (served && change.was) change.was = { ...change.was, ...pick(served, wanted) };
    }
    change.turn += 1;
    return change;
  }

  const pick = (from, names) => Object.fromEntries(Object.keys(names).filter((name) => from && name in from).map((name) => [name, from[name]]));

  /** Whether the item, as it is by now, already has the values of the change. */
  function done(change, item) {
    if (change.etag === null || number(item) <= number(change)) return false;
    return item.status === "deleted" || (!change.remove && Object.entries(change.set).every(([name, value]) => item[name] === value));
  }

  /** The item as its user has it: waiting changes are applied already. Null for one that she deleted. */
  function overlaid(item, change) {
    if (!change) return item.status === "deleted" ? null : item;
    return item.status === "deleted" || change.remove ? null : { ...item, ...change.set, unsent: true };
  }

  /**
   * The rest of a change that the service refused because the item has changed since (412), or null where nothing is.
   * Another device decided later where a property is neither as the user saw it nor as she wants it, and where an answer was lost and
   * everything is as it was before: then ours was done and undone. A new post that she never saw stands.
   */
  function remaining(change, now) {
    if (now.status === "deleted" || (change.content !== null && change.content !== JSON.stringify(now.content))) return null;
    const next = { ...change, etag: now.etag, was: states(now), doubt: false, tried: {} };
    if (change.remove) return next;
    const undone = change.was && change.doubt && same(change.was, now);
    const left = Object.entries(change.set).filter(([name, value]) => {
      const tried = change.tried[name] ?? [];
      if (now[name] === value || (undone && tried.includes(value))) return false;
      return !change.was || now[name] === change.was[name] || tried.includes(now[name]); // the value there may be our own earlier wish
    });
    return left.length ? { ...next, set: Object.fromEntries(left) } : null;
  }

  /** Store the user's change, before anything is sent. */
  function want(at, user, id, wanted, served) {
    return at.run(async (rows) => {
      const key = `${user}/${id}`;
      const item = served ?? (await rows.get("items", key))?.item ?? null;
      const change = merged((await rows.get("unsent", key))?.change, id, wanted, item);
      rows.put("unsent", { key, change });
      return change;
    });
  }

  /** Replace the change that was sent by the rest of it (null: nothing). Later changes of the user stay. */
  function settle(at, user, sent, left, item = null) {
    return at.run(async (rows) => {
      const key = `${user}/${sent.item}`;
      const waiting = (await rows.get("unsent", key))?.change;
      if (!waiting) return;
      if (waiting.turn === sent.turn) {
        if (left) rows.put("unsent", { key, change: left });
        else rows.delete("unsent", key);
      } else if (item && !left) {
        const set = Object.fromEntries(Object.entries(waiting.set).filter(([name, value]) => value !== sent.set[name]));
        const change = { ...waiting, set, was: states(item), etag: item.etag, doubt: false, tried: {} };
        if (change.remove || Object.keys(set).length) rows.put("unsent", { key, change });
        else rows.delete("unsent", key);
      } else {
        const { doubt, tried } = left ?? waiting;
        rows.put("unsent", { key, change: { ...waiting, doubt, tried } });
      }
    });
  }

  /**
   * Send waiting changes, for this user only. `ask(method, path, body, headers)` is one request with a token of hers; it throws an error, with
   * a `status` where the service refused. `took(items)` gets each item as the service has it then. Returns the refusals that end a
   * change (`{change, error}`); throws an error where nothing can be sent now. One page or worker of a browser sends at a time.
   */
  async function flush(at, user, ask, took) {
    const work = () => flushed(at, user, ask, took);
    return globalThis.navigator?.locks ? navigator.locks.request(`fanout-unsent-${user}`, work) : alone(user, work);
  }

  const turns = new Map();

  function alone(user, work) {
    const mine = (turns.get(user) ?? Promise.resolve()).then(work);
    turns.set(user, mine.catch(() => {}));
    return mine;
  }

  async function flushed(at, user, ask, took) {
    const refused = [];
    for (;;) {
      const [row] = await at.run((rows) => rows.all("unsent", user));
      if (!row) return refused;
      const known = (await at.run((rows) => rows.get("items", row.key)))?.item;
      if (known && done(row.change, known)) {
        await settle(at, user, row.change, null);
        continue;
      }
      const tried = { ...row.change.tried };
      for (const [name, value] of Object.entries(row.change.set)) tried[name] = [...new Set([...(tried[name] ?? []), value])];
      const change = { ...row.change, doubt: true, tried };
      const path = `/v1/me/feed/${encodeURIComponent(change.item)}`;
      await settle(at, user, change, change); // from here on it may have been done, whatever comes back
      try {
        const headers = change.etag ? { "if-match": change.etag } : {};
        const answer = await (change.remove ? ask("DELETE", path, undefined, headers) : ask("PATCH", path, change.set, headers));
        await took([answer.item]);
        await settle(at, user, change, null, answer.item);
      } catch (error) {
        await refusal(at, user, row.change, error, { ask, took, path, refused });
      }
      await announce(user, [change.item]);
    }
  }

  async function refusal(at, user, change, error, { ask, took, path, refused }) {
    if (error.status === 412) {
      const now = await ask("GET", path).catch((failure) => {
        if (failure.status === 404) return null;
        throw failure;
      });
      if (now) await took([now]);
      return settle(at, user, change, now && remaining(change, now), now);
    }
    if (error.status === 404) {
      const known = (await at.run((rows) => rows.get("items", `${user}/${change.item}`)))?.item; // it has expired, or has been deleted
      if (known) await took([{ ...known, status: "deleted", content: null, modified_at: Date.now() / 1000 }]);
      if (!change.remove) refused.push({ change, error });
      return settle(at, user, change, null);
    }
    if (error.status >= 400 && error.status < 500 && ![401, 403, 408, 429].includes(error.status)) {
      refused.push({ change, error }); // it will never be taken
      return settle(at, user, change, null);
    }
    if (error.status >= 400 && error.status < 500) await settle(at, user, change, change); // it was not done: no more doubt than before
    throw error;
  }

  // -- the subscription of this browser, which the page asks for and the worker renews

  /** The browser's own subscription for that key, made where there is none; `fresh` gives up the one that there is. */
  async function pushSubscription(registration, applicationServerKey, fresh = false) {
    let held = await registration.pushManager.getSubscription();
    if (held && (fresh || !madeFor(held, applicationServerKey))) {
      await held.unsubscribe(); // pushes for our key would be refused
      held = null;
    }
    return held ?? registration.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey });
  }

  function madeFor(held, wanted) {
    const key = held.options?.applicationServerKey;
    if (!key) return false;
    const text = btoa(String.fromCharCode(...new Uint8Array(key)));
    return text.replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "") === wanted.replace(/=+$/, "");
  }

  // -- the other pages and the worker of this browser

  const channel = typeof BroadcastChannel === "undefined" || !globalThis.location ? null : new BroadcastChannel("fanout");

  /** Tell them that these items, or changes that wait for them, are new in the store; they read it there. */
  async function announce(user, ids, more = {}) {
    channel?.postMessage({ user, ids, ...more });
  }

  /** Hear their messages. Returns a function that ends it. */
  function listen(heard) {
    const each = ({ data }) => heard(data);
    channel?.addEventListener("message", each);
    return () => channel?.removeEventListener("message", each);
  }

  return {
    announce, flush, forget, keep, kept, listen, load, look, madeFor, memory, merged, newer, overlaid, place, pushSubscription, remaining, settle, take, users, waiting, want,
  };
})();
