// The items of a feed in a page's memory: as the service told them, and as the user has them.

import "./store.js";

const store = globalThis.fanoutStore;

export class Items {
  #left = new Set(); // shown, and not read again since everything was forgotten

  constructor() {
    /** As the user has them, by id: waiting changes are applied already, deleted ones are left out. */
    this.shown = new Map();
    /** As the service told them last, by id; deleted ones too, so that a late answer does not bring them back. */
    this.served = new Map();
    /** The changes that wait, by id. */
    this.unsent = new Map();
  }

  find(id) {
    return this.served.get(id) ?? [...this.shown.values()].find((item) => item.external_id === id) ?? null;
  }

  clear() {
    for (const all of [this.shown, this.served, this.unsent, this.#left]) all.clear();
  }

  /** Forget the served items. Shown items stay until they have been read again, or `left` says that it has not. */
  forget() {
    this.served.clear();
    this.#left = new Set(this.shown.keys());
  }

  /** Items that were not read again are gone; returns those. */
  left() {
    const gone = [...this.#left];
    this.#left.clear();
    return this.show(gone);
  }

  /** Those of the items that are newer than the served ones; they are served now. */
  take(items) {
    const news = items.filter((item) => store.newer(this.served.get(item.id), item));
    for (const item of news) {
      this.served.set(item.id, item);
      this.#left.delete(item.id);
    }
    return news;
  }

  /** These are the changes that wait, of all items or of `ids`; returns the items that it concerns. */
  wait(changes, ids = [...this.unsent.keys()]) {
    for (const id of ids) this.unsent.delete(id);
    for (const change of changes) this.unsent.set(change.item, change);
    return new Set([...ids, ...changes.map((change) => change.item)]);
  }

  /** Bring the shown items up to date; returns those that differ now. */
  show(ids) {
    const news = [];
    for (const id of ids) {
      const served = this.served.get(id);
      const before = this.shown.get(id);
      const after = served ? store.overlaid(served, this.unsent.get(id)) : null;
      if (after) this.shown.set(id, after);
      else this.shown.delete(id);
      if (after ? !before || visible(before) !== visible(after) : before) news.push(after ?? { ...before, ...served, status: "deleted" });
    }
    return news;
  }
}

/** The properties of an item that a reader notices. */
function visible(item) {
  return JSON.stringify({ ...item, etag: 0, modified_at: 0, display_ttl: 0, unsent: 0 });
}
