// The stream: one connection that comes back by itself, and goes on where it was cut.

import { key } from "./api.js";

const LONGEST_WAIT = 10000;
// A heartbeat comes each second; a connection without three of them is taken for lost.
const SILENCE = 4000;

export class Stream {
  // on: {snapshot(id, items, more), updates(items), heartbeat(message), state(name, words)}
  constructor(on) {
    this.on = on;
    this.subscriptions = new Map();
    this.cursor = null;
    this.wait = 250;
    this.socket = null;
    this.timer = null;
  }

  // The first subscription goes on by its cursor after a cut; the others begin with a snapshot.
  subscribe(id, wanted) {
    this.subscriptions.set(id, wanted);
    this.send({ action: "subscribe", id, ...wanted });
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}/stream`);
    this.socket = socket;
    this.ready = false;
    socket.onmessage = (event) => socket === this.socket && this.take(JSON.parse(event.data));
    socket.onclose = (event) => socket === this.socket && this.lost(event.reason);
    this.watch();
  }

  // Begin again: with another key.
  restart() {
    const old = this.socket;
    this.socket = null;
    this.cursor = null;
    clearTimeout(this.again);
    old?.close();
    this.open();
  }

  send(message) {
    if (this.ready && this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  watch() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.socket?.close(), SILENCE);
  }

  lost(reason) {
    clearTimeout(this.timer);
    this.ready = false;
    this.on.state("lost", reason ? `not connected: ${reason}` : "not connected, trying again");
    this.again = setTimeout(() => this.open(), this.wait * (0.75 + Math.random() / 2));
    this.wait = Math.min(this.wait * 2, LONGEST_WAIT);
  }

  begin() {
    this.ready = true;
    this.wait = 250;
    const cursor = this.cursor;
    let first = true;
    for (const [id, wanted] of this.subscriptions) {
      const place = first && cursor ? { cursor } : {};
      this.send({ action: "subscribe", id, ...wanted, ...place });
      first = false;
    }
  }

  take(message) {
    if (message.type !== "error") this.watch();
    if (message.type === "welcome") {
      if (message.scopes.length) this.begin();
      else if (key()) this.socket.send(JSON.stringify({ action: "auth", key: key() }));
      else this.on.state("lost", "a key is needed");
    } else if (message.type === "authenticated") this.begin();
    else if (message.type === "snapshot") {
      this.cursor = message.cursor;
      this.on.snapshot(message.id, message.items, message.more);
    } else if (message.type === "updates") {
      this.cursor = message.cursor;
      this.on.updates(message.items);
    } else if (message.type === "heartbeat") {
      this.cursor = message.cursor;
      this.on.heartbeat(message);
      this.on.state("live", message.dropped ? `live, ${message.dropped} older prices left out` : "live");
    } else if (message.type === "error") this.on.state("lost", message.message);
  }
}
