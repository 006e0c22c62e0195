// A small page over the client: the feed of whoever's token it is given, as every device of theirs sees it.
// `#token=…`, `#key=…` (the application server key), `#renderer=…` and `#dir=rtl` in the address fill it in; none is ever sent as part of
// an address.

import { Fanout } from "./fanout.js";

const NEWEST = 50;
const STATES = { offline: "Offline. The list is as it was last read.", synchronizing: "Reading…", synchronized: "Up to date." };
const DONE = { none: "", activated: "Opened", dismissed: "Dismissed", snoozed: "Snoozed" };

const $ = (id) => document.getElementById(id);
const given = new URLSearchParams(location.hash.slice(1));
const [relative, absolute] = [new Intl.RelativeTimeFormat(undefined, { numeric: "auto" }), new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "short" })];
let client = null;
let told = new Set(); // items that a screen reader has been told of

if (given.get("dir") === "rtl") document.documentElement.dir = "rtl";

/** The trouble, and the button that helps. */
function says(text, button = null) {
  $("says").textContent = text;
  for (const each of ["again", "retry"]) $(each).hidden = each !== button;
  $("trouble").hidden = !text;
}

async function signIn(token) {
  client?.stop();
  const mine = new Fanout({ service: new URL("..", location.href).href, token, newest: NEWEST, applicationServerKey: given.get("key"), binding: given.get("binding") ?? "webpush" });
  client = globalThis.client = mine; // to play with in the console
  told = new Set();
  $("feed").replaceChildren();
  let subscribed = false; // or tried to be, by itself
  const on = (type, act) => mine.addEventListener(type, (event) => mine === client && act(event));
  on("change", ({ detail }) => draw(detail));
  on("counts", count);
  on("status", () => draw([]));
  on("user", ({ detail }) => {
    if (detail === null) signedOut("You are signed out.");
  });
  on("unauthorized", () => signedOut("The token is not accepted, or has ended. Sign in with another one."));
  on("stopped", ({ detail }) => detail.status !== 401 && says(detail.message, "retry"));
  on("subscription", ({ detail }) => {
    subscribed = true;
    if (detail === "denied") says("This browser allows no notifications: new items are shown while this page is open.", "again");
    else if (detail === "ended") says("This browser has no subscription now. It is tried again by itself.", "again");
    else says("");
  });
  says("");
  try {
    await mine.start();
    // Follow as a device of the user's, so that this page's changes are told to the others and not to itself.
    if (!mine.unsid && !subscribed && mine.status !== "offline") await mine.subscribe({ applicationServerKey: null });
    if (mine !== client) return;
    signedIn();
  } catch (error) {
    if (error.status !== 401) says(error.message, "retry");
  }
}

function signedIn() {
  $("sign-in").hidden = true;
  $("token").value = "";
  $("acts").hidden = false;
  $("push").hidden = !given.get("key");
  $("who").textContent = given.get("user") ?? "";
  draw([]);
}

function signedOut(text) {
  $("sign-in").hidden = false;
  $("acts").hidden = $("empty").hidden = $("more").hidden = true;
  for (const each of ["who", "status", "news"]) $(each).textContent = "";
  $("feed").replaceChildren();
  count();
  says(text);
  $("token").focus();
}

function status() {
  const { waiting, status: now } = client;
  const unsent = waiting ? ` ${waiting === 1 ? "One change is" : `${waiting} changes are`} not sent yet.` : "";
  $("status").textContent = $("sign-in").hidden ? STATES[now] + unsent : "";
}

function count() {
  const unseen = client?.user ? (client.counts?.unseen ?? 0) : 0;
  $("unseen").textContent = unseen > 99 ? "99+" : String(unseen);
  $("unseen").setAttribute("aria-label", `${unseen} new`);
  $("unseen").setAttribute("role", "img");
  $("unseen").hidden = !unseen;
  document.title = unseen ? `(${unseen}) Notifications` : "Notifications";
  navigator.setAppBadge?.(unseen).catch(() => {});
  if (unseen && document.visibilityState === "visible" && document.hasFocus()) looked();
}

let looking = null;

/** The user has the page before her eyes: new items stay new a moment longer, and are then seen. */
function looked() {
  looking ??= setTimeout(() => {
    looking = null;
    if (client?.counts?.unseen) client.look().catch(() => {});
  }, 3000);
}

/** Bring the list up to date, each entry in its place: the focused entry keeps the focus. */
function draw(changed) {
  const items = [...client.items.values()].filter((item) => item.expires_at * 1000 > Date.now()).sort((a, b) => b.created_at - a.created_at);
  const list = $("feed");
  const focused = document.activeElement?.closest?.("#feed li");
  const next = focused?.nextElementSibling ?? focused?.previousElementSibling;
  const entries = new Map([...list.children].map((li) => [li.id, li]));
  const news = new Set(changed.map((item) => item.id));
  let place = list.firstElementChild;
  for (const item of items) {
    const li = entries.get(`item-${item.id}`) ?? made(item);
    if (!entries.delete(li.id) || news.has(item.id)) fill(li, item);
    if (li === place) place = place.nextElementSibling;
    else list.insertBefore(li, place);
  }
  for (const li of entries.values()) li.remove();
  if (focused && !focused.isConnected) (next?.isConnected ? next.querySelector("button") : $("heading")).focus();
  $("empty").hidden = items.length > 0 || client.user === null || client.status === "synchronizing" || !$("sign-in").hidden;
  $("more").hidden = !client.hasMore;
  status();
  const fresh = items.filter((item) => !told.has(item.id) && !item.read);
  if (told.size && fresh.length) $("news").textContent = fresh.length === 1 ? `New: ${titleOf(fresh[0])}` : `${fresh.length} new notifications`;
  for (const item of items) told.add(item.id);
  told.add("");
}

function titleOf({ content }) {
  const title = content?.title ?? content?.rawContent;
  return typeof title === "string" && title ? title : "Data without a title";
}

function element(name, className, more = {}) {
  return Object.assign(document.createElement(name), { className, ...more });
}

function made(item) {
  const li = element("li", "", { id: `item-${item.id}` });
  const top = element("div", "top");
  const mark = element("span", "mark");
  mark.setAttribute("role", "img");
  mark.setAttribute("aria-label", "Unread");
  top.append(mark, element("h2", "title", { id: `title-${item.id}`, dir: "auto" }));
  const when = element("p", "when");
  when.append(element("time", ""), element("span", "state"));
  const acts = element("div", "row");
  acts.setAttribute("role", "group");
  for (const [name, text, act] of [
    ["read", "Read", (now) => client.markRead(now.id, !now.read)],
    ["dismiss", "Dismiss", (now) => client.dismiss(now.id)],
    ["delete", "Delete", (now) => client.remove(now.id)],
  ]) {
    const button = element("button", name, { type: "button", textContent: text });
    button.setAttribute("aria-describedby", `title-${item.id}`);
    button.addEventListener("click", () => doing(act(client.items.get(item.id) ?? item)));
    acts.append(button);
  }
  li.append(top, element("p", "text", { dir: "auto" }), when, acts);
  return li;
}

function fill(li, item) {
  li.classList.toggle("unread", !item.read && item.action === "none");
  li.classList.toggle("done", item.action === "dismissed");
  const title = li.querySelector(".title");
  const url = linkOf(item);
  if (url) {
    const link = element("a", "", { href: url, textContent: titleOf(item), rel: "noreferrer" });
    link.addEventListener("click", () => doing(client.activate(item.id)));
    title.replaceChildren(link);
  } else title.textContent = titleOf(item);
  li.querySelector(".text").textContent = typeof item.content?.body === "string" ? item.content.body : "";
  const time = li.querySelector("time");
  const at = new Date(item.created_at * 1000);
  Object.assign(time, { dateTime: at.toISOString(), title: absolute.format(at), textContent: ago(at) });
  li.querySelector(".state").textContent = DONE[item.action] && ` · ${DONE[item.action]}`;
  li.querySelector(".read").textContent = item.read ? "Mark as unread" : "Mark as read";
  const dismiss = li.querySelector(".dismiss");
  if (item.action === "dismissed" && document.activeElement === dismiss) li.querySelector(".read").focus();
  dismiss.hidden = item.action === "dismissed";
}

/** The address that the item opens; any other address than one of a web page opens nothing. */
function linkOf({ content }) {
  if (typeof content?.url !== "string") return null;
  try {
    const url = new URL(content.url, location.href);
    return ["http:", "https:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

function ago(at) {
  const seconds = (at - Date.now()) / 1000;
  for (const [unit, size] of [["day", 86_400], ["hour", 3600], ["minute", 60]]) {
    if (Math.abs(seconds) >= size) return relative.format(Math.trunc(seconds / size), unit);
  }
  return relative.format(0, "minute");
}

function doing(work) {
  work.then(status, (error) => says(error.message));
}

$("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  signIn($("token").value.trim());
});
$("sign-out").addEventListener("click", () => {
  history.replaceState(null, "", location.pathname + location.search); // so that a reload does not sign in again
  client.unsubscribe().catch(() => signedOut("You are signed out here. The service could not be told yet: its pushes to this browser are not shown."));
});
$("all-read").addEventListener("click", () => doing(client.markAllRead()));
$("more").addEventListener("click", () => doing(client.more(NEWEST)));
$("retry").addEventListener("click", () => {
  says("");
  doing(client.start().then(signedIn));
});
const push = (applicationServerKey) =>
  client
    .subscribe({ applicationServerKey, renderer: given.get("renderer") })
    .then(() => says(applicationServerKey ? "This browser is subscribed." : ""), (error) => says(error.message, "again"));
$("push").addEventListener("click", () => push(given.get("key")));
$("again").addEventListener("click", () => push(globalThis.Notification?.permission === "denied" ? null : given.get("key")));
for (const type of ["focus", "visibilitychange"]) addEventListener(type, count);
setInterval(() => document.querySelectorAll("#feed time").forEach((time) => (time.textContent = ago(new Date(time.dateTime)))), 60_000);
if (given.get("token")) signIn(given.get("token"));
