// A small page over the client: the feed of whoever's token it is given, as every device of theirs sees it.
// `#token=…` and `#key=…` (the application server key) in the address fill it in; neither is ever sent as part of an address.

import { Fanout } from "./fanout.js";

const $ = (id) => document.getElementById(id);
const given = new URLSearchParams(location.hash.slice(1));
let client = null;

function says(text) {
  $("says").textContent = text;
}

async function signIn(token) {
  client?.stop();
  client = new Fanout({ service: new URL("..", location.href).href, token });
  globalThis.client = client; // to play with in the console
  client.addEventListener("change", draw);
  client.addEventListener("status", ({ detail }) => ($("status").textContent = detail));
  client.addEventListener("unauthorized", () => says("The token is not accepted, or has ended."));
  client.addEventListener("subscription", ({ detail }) => says(`This browser's subscription is ${detail}: subscribe again.`));
  try {
    await client.start();
    // Follow as a device of the user's, so that what this page changes is told to the others and not to itself.
    if (!client.unsid) await client.subscribe();
    $("sign-in").hidden = true;
    $("push").hidden = !given.get("key");
    $("who").textContent = given.get("user") ?? "";
    says("");
    draw();
  } catch (error) {
    says(error.message);
  }
}

function draw() {
  const items = [...client.items.values()].sort((a, b) => b.created_at - a.created_at);
  $("feed").replaceChildren(...items.map(entry));
}

function entry(item) {
  const li = document.createElement("li");
  li.id = `item-${item.id}`;
  li.classList.toggle("unread", !item.read);
  li.classList.toggle("done", item.action === "dismissed");
  const content = item.content ?? {};
  const title = document.createElement("strong");
  title.textContent = content.title ?? content.rawContent ?? "(data)";
  const body = document.createElement("p");
  body.textContent = content.body ?? "";
  li.append(title, body);
  const acts = { [item.read ? "Unread" : "Read"]: () => client.markRead(item.id, !item.read), Dismiss: () => client.dismiss(item.id), Delete: () => client.remove(item.id) };
  for (const [name, act] of Object.entries(acts)) {
    const button = document.createElement("button");
    button.textContent = name;
    button.addEventListener("click", () => act().catch((error) => says(error.message)));
    li.append(button, " ");
  }
  const state = document.createElement("small");
  state.textContent = item.action === "none" ? "" : item.action;
  li.append(state);
  return li;
}

$("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  signIn($("token").value.trim());
});
$("push").addEventListener("click", () =>
  client
    .subscribe({ applicationServerKey: given.get("key"), binding: given.get("binding") ?? "webpush" })
    .then(() => says("This browser is subscribed."))
    .catch((error) => says(error.message)),
);
if (given.get("token")) signIn(given.get("token"));
