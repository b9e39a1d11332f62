// The dashboard: what is chosen, what came, and what is drawn of it.

import { get, useKey } from "./api.js";
import { EquityChart, PriceChart } from "./charts.js";
import { age, amount, number, seconds, time } from "./format.js";
import { Stream } from "./stream.js";
import { fill, heat } from "./tables.js";

const ROWS = 600;
const TABLE_ROWS = 100;
const at = (id) => document.getElementById(id);

const state = { datasets: [], dataset: null, symbol: null, interval: null, strategy: null, chosen: ["sma_20", "sma_50", "rsi_14"], bars: [], features: [], signals: [], prices: new Map(), account: null, pending: null };
let price, equity, drawn = 0;

// Looks ------------------------------------------------------------------------------------------------------------

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  at("theme").setAttribute("aria-pressed", String(name === "dark"));
}

function toggleTheme() {
  const name = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("quantlytic-theme", name);
  setTheme(name);
  price.paint(state.bars);
  equity.paint();
  showMarks();
}

function problem(error) {
  at("problem").hidden = !error;
  at("problem").textContent = error ? error.message ?? String(error) : "";
  if (error?.status === 401 && !at("key-dialog").open) at("key-dialog").showModal();
}

// What is chosen ---------------------------------------------------------------------------------------------------

function options(select, names, chosen) {
  select.replaceChildren(...names.map((name) => new Option(name, name, false, name === chosen)));
  select.disabled = names.length === 0;
  return names.includes(chosen) ? chosen : names[0] ?? null;
}

function fromAddress() {
  const asked = new URLSearchParams(location.hash.slice(1));
  for (const name of ["dataset", "symbol", "interval", "strategy"]) state[name] = asked.get(name) ?? state[name];
  if (asked.has("features")) state.chosen = asked.get("features").split(",").filter(Boolean);
}

function toAddress() {
  const { dataset, symbol, interval, strategy, chosen } = state;
  const said = new URLSearchParams({ dataset, symbol, interval, ...(strategy ? { strategy } : {}), features: chosen.join(",") });
  history.replaceState(null, "", `#${said}`);
}

function choose() {
  const dataset = state.datasets.find((one) => one.name === state.dataset) ?? state.datasets[0];
  if (!dataset) return problem(new Error("The universe declares no dataset."));
  state.dataset = options(at("dataset"), state.datasets.map((one) => one.name), dataset.name);
  state.symbol = options(at("symbol"), dataset.symbols, state.symbol);
  state.interval = options(at("interval"), dataset.intervals, state.interval);
  state.strategy = options(at("strategy"), dataset.strategies, state.strategy);
  const names = Object.keys(dataset.features);
  at("features").replaceChildren(
    ...names.map((name) => {
      const box = Object.assign(document.createElement("input"), { type: "checkbox", value: name, checked: state.chosen.includes(name) });
      const label = document.createElement("label");
      label.append(box, name);
      return label;
    }),
  );
  showCount();
  at("price-title").textContent = `${state.symbol}, ${state.interval}`;
  at("account-title").textContent = state.strategy ? `Account of ${state.strategy}` : "Account";
  state.bars = [];
  state.features = [];
  state.signals = [];
  state.account = null;
  toAddress();
  subscribe(dataset);
  showAccount();
  loadAccount();
  loadCoverage();
}

// How many features are shown, or at which intervals there are some.
function showCount() {
  const { features, feature_intervals: lengths } = now();
  const count = state.chosen.filter((name) => name in features).length;
  at("features-count").textContent = lengths.includes(state.interval) ? `(${count})` : `(at ${lengths.join(", ")})`;
}

const now = () => state.datasets.find((one) => one.name === state.dataset);

function subscribe(dataset) {
  const trading = state.strategy ? { strategies: [state.strategy] } : {};
  const channels = ["bars", "features", ...(state.strategy ? ["signals"] : [])];
  state.prices = new Map(dataset.symbols.map((symbol) => [symbol, { symbol }]));
  stream.cursor = null;
  stream.subscribe("view", { dataset: dataset.name, symbols: [state.symbol], intervals: [state.interval], channels, snapshot: ROWS, ...trading });
  stream.subscribe("prices", { dataset: dataset.name, symbols: "*", channels: ["latest"] });
  if (state.strategy) stream.subscribe("account", { strategies: [state.strategy], channels: ["orders"], snapshot: 0 });
}

// What comes -------------------------------------------------------------------------------------------------------

// The row in its place by time: true where it is the newest one.
function put(rows, row) {
  let place = rows.length;
  while (place > 0 && rows[place - 1].t > row.t) place -= 1;
  if (place > 0 && rows[place - 1].t === row.t) rows[place - 1] = row;
  else rows.splice(place, 0, row);
  if (rows.length > 4 * ROWS) rows.splice(0, rows.length - 2 * ROWS);
  return row.t === rows[rows.length - 1].t;
}

const ours = (item) => item.symbol === state.symbol && item.interval === state.interval && item.dataset === state.dataset;

const stream = new Stream({
  snapshot(id, items, more) {
    for (const item of items) {
      if (id === "view" && item.channel === "bars" && ours(item)) state.bars = item.rows;
      if (id === "view" && item.channel === "features" && ours(item)) state.features = item.rows;
      if (id === "view" && item.channel === "signals" && item.symbol === state.symbol) state.signals = item.rows;
      if (item.channel === "latest" && item.dataset === state.dataset && item.rows.length) take(item.symbol, item.rows[0]);
    }
    if (!more && id === "view") redraw();
    if (!more && id === "prices") showPrices();
  },
  updates(items) {
    let whole = false;
    for (const item of items) {
      if (item.channel === "bars" && ours(item) && item.data.deleted) {
        state.bars = state.bars.filter((bar) => bar.t !== item.data.t);
        whole = true;
      } else if (item.channel === "bars" && ours(item)) {
        whole = !put(state.bars, item.data) || whole;
        if (!whole) price.update(state.bars[state.bars.length - 1]);
        later(showBars);
        later(showNewest);
      } else if (item.channel === "features" && ours(item)) {
        if (put(state.features, item.data)) price.updateFeatures(item.data);
        else whole = true;
      } else if (item.channel === "signals" && item.symbol === state.symbol) {
        put(state.signals, item.data);
        showMarks();
      } else if (item.channel === "latest" && item.dataset === state.dataset) {
        take(item.symbol, item.data);
        later(showPrices);
      } else if (item.channel === "orders") later(loadAccount, 500);
    }
    if (whole) redraw();
    drawn += 1;
    document.documentElement.dataset.updates = String(drawn);
  },
  heartbeat(message) {
    for (const [symbol, value] of Object.entries(message.ages[state.dataset] ?? {})) {
      const known = state.prices.get(symbol);
      if (known) known.age = value;
    }
    at("age").textContent = age(state.prices.get(state.symbol)?.age);
    later(showPrices);
  },
  state(name, words) {
    const place = at("connection");
    // What was asked for while nothing answered is asked for again.
    if (name === "live" && place.dataset.state === "lost") again();
    if (name === "lost" && !state.datasets.length) later(load, 2000);
    place.dataset.state = name;
    if (place.textContent !== words) place.textContent = words;
  },
});

// A newest price: of the candle that is under way, where one can tell which that is.
function take(symbol, found) {
  const known = state.prices.get(symbol) ?? { symbol };
  const before = known.p;
  Object.assign(known, found, { mark: before === undefined || before === found.p ? known.mark : found.p > before ? "up" : "down" });
  state.prices.set(symbol, known);
  if (symbol !== state.symbol) return;
  at("last").textContent = number(found.p);
  const last = state.bars[state.bars.length - 1];
  const step = now()?.seconds[state.interval];
  if (!last || found.source === "lake" || !step || step >= 86400) return;
  const start = Math.floor(seconds(found.t) / step) * step;
  if (start < seconds(last.t) + step && !last.open) return;
  const growing = last.open && seconds(last.t) === start ? last : { t: new Date(start * 1000).toISOString().replace(".000Z", "Z"), o: found.p, h: found.p, l: found.p, c: found.p, v: 0, open: true };
  if (growing !== last && start <= seconds(last.t)) return;
  Object.assign(growing, { h: Math.max(growing.h, found.p), l: Math.min(growing.l, found.p), c: found.p, v: growing.v + (found.s ?? 0) });
  if (growing !== last) state.bars.push(growing);
  price.update(growing);
  later(showBars);
  later(showNewest);
}

// Drawing ----------------------------------------------------------------------------------------------------------

const waiting = new Map();

// Tables need not follow each price.
function later(what, wait = 250) {
  if (waiting.has(what)) return;
  waiting.set(what, setTimeout(() => { waiting.delete(what); what(); }, wait));
}

function redraw() {
  const last = state.bars[state.bars.length - 1];
  at("price-empty").hidden = Boolean(last);
  price.show(state.bars, state.interval === "1d", last?.c ?? 0);
  const known = now().features;
  const named = state.chosen.filter((name) => name in known).map((name) => ({ name, overlay: known[name] === "price" && !/^(macd|atr|mom)/.test(name) }));
  const first = state.bars[0]?.t ?? "";
  price.features(state.features.length ? named : [], state.features.filter((row) => row.t >= first));
  showLegend(null);
  showMarks();
  showBars();
}

const showNewest = () => showLegend(null);

function showLegend(moment) {
  const find = (rows) => (moment === null ? rows[rows.length - 1] : rows.find((row) => seconds(row.t) === moment));
  const bar = find(state.bars);
  const parts = [];
  const part = (name, value, color) => {
    const place = document.createElement("span");
    if (color) {
      const line = document.createElement("span");
      line.className = "key";
      line.style.background = color;
      place.append(line);
    }
    const strong = document.createElement("b");
    strong.textContent = value;
    place.append(`${name} `, strong);
    parts.push(place);
  };
  if (bar) {
    part("", time(bar.t));
    for (const [name, field] of [["O", "o"], ["H", "h"], ["L", "l"], ["C", "c"]]) part(name, number(bar[field]));
    part("V", amount(bar.v));
  }
  const row = find(state.features);
  for (const [name, line] of price.lines) part(name, number(row?.[name]), line.color);
  at("legend").replaceChildren(...parts);
}

function showMarks() {
  if (!state.bars.length) return price.setMarks([]);
  const times = state.bars.map((bar) => bar.t);
  const first = times[0];
  // A fill is inside of a bar: its mark stands at the bar.
  const barOf = (text) => {
    let low = 0, high = times.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (seconds(times[middle]) <= seconds(text)) low = middle + 1;
      else high = middle;
    }
    return times[low - 1];
  };
  const marks = [];
  let held = null;
  for (const row of state.signals) {
    if ((row.signal === "buy" || row.signal === "sell") && row.signal !== held && row.t >= first) marks.push({ t: barOf(row.t), side: row.signal, kind: "signal", text: "" });
    held = row.signal;
  }
  for (const order of state.account?.orders ?? []) {
    if (order.symbol !== state.symbol) continue;
    for (const fill of order.fills ?? []) {
      const moment = fill.fill_time;
      if (seconds(moment) >= seconds(first)) marks.push({ t: barOf(moment), side: order.side ?? (fill.quantity < 0 ? "sell" : "buy"), kind: "fill", text: amount(Math.abs(fill.quantity)) });
    }
  }
  marks.sort((one, other) => seconds(one.t) - seconds(other.t));
  price.setMarks(marks);
}

function showBars() {
  const columns = [["Time (UTC)", (row) => time(row.t)], ["Open", (row) => number(row.o)], ["High", (row) => number(row.h)], ["Low", (row) => number(row.l)], ["Close", (row) => number(row.c)], ["Volume", (row) => amount(row.v)]];
  fill(at("bars"), columns, state.bars.slice(-TABLE_ROWS).reverse());
}

function showPrices() {
  const columns = [["Symbol", (row) => row.symbol], ["Price", (row) => number(row.p)], ["Age", (row) => age(row.age)], ["Time (UTC)", (row) => time(row.t)]];
  fill(at("prices"), columns, [...state.prices.values()]);
}

async function loadAccount() {
  const name = state.strategy;
  if (!name) return;
  try {
    const found = await get(`/dashboard/strategies/${encodeURIComponent(name)}`);
    if (name !== state.strategy) return;
    state.account = found;
    showAccount();
    showMarks();
  } catch (error) {
    problem(error);
  }
}

function showAccount() {
  const { curve, positions, orders } = state.account ?? { curve: [], positions: [], orders: [] };
  equity.show(curve);
  at("equity").hidden = !curve.length;
  at("equity-empty").hidden = Boolean(curve.length);
  at("equity-empty").textContent = state.strategy ? "This strategy has not traded yet." : "No strategy trades this dataset.";
  at("equity-now").textContent = curve.length ? `${number(curve[curve.length - 1][1], 2)} on ${curve[curve.length - 1][0].slice(0, 10)}` : "";
  fill(at("equity-table"), [["Session", ([day]) => day.slice(0, 10)], ["Equity", ([, value]) => number(value, 2)]], curve.slice(-TABLE_ROWS).reverse());
  fill(at("positions"), [["Symbol", (row) => row.symbol], ["Quantity", (row) => amount(row.quantity)], ["Average price", (row) => number(row.average_price)], ["Close", (row) => number(row.close)], ["Value", (row) => number(row.market_value, 2)]], positions.filter((row) => row.quantity), "No position is held.");
  fill(at("orders"), [["Decided (UTC)", (row) => time(row.decision_time)], ["Symbol", (row) => row.symbol, "text"], ["Side", (row) => row.side ?? "", "text"], ["Quantity", (row) => amount(row.quantity)], ["Status", (row) => row.status ?? "", "text"], ["Filled at", (row) => number(row.fills?.[0]?.price)]], orders.slice(0, TABLE_ROWS), "No order was sent.");
}

async function loadCoverage() {
  const name = state.dataset;
  try {
    const found = await get(`/dashboard/coverage/${encodeURIComponent(name)}`);
    if (name === state.dataset) heat(at("gaps"), found);
  } catch (error) {
    problem(error);
  }
}

function again() {
  problem(null);
  loadAccount();
  loadCoverage();
}

// Start ------------------------------------------------------------------------------------------------------------

async function load() {
  try {
    const catalog = await get("/dashboard/catalog");
    state.datasets = catalog.datasets;
    at("pages").href = catalog.pages;
    problem(catalog.mistakes.length ? new Error(`The universe file has mistakes: ${catalog.mistakes.join(" ")}`) : null);
    choose();
  } catch (error) {
    problem(error);
  }
}

function start() {
  const saved = localStorage.getItem("quantlytic-theme");
  setTheme(saved ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
  fromAddress();
  price = new PriceChart(at("price"), showLegend);
  equity = new EquityChart(at("equity"));
  at("theme").addEventListener("click", toggleTheme);
  at("key").addEventListener("click", () => at("key-dialog").showModal());
  at("key-dialog").addEventListener("close", () => {
    if (at("key-dialog").returnValue !== "use") return;
    useKey(at("key-text").value.trim());
    at("key-text").value = "";
    load();
    stream.restart();
  });
  for (const name of ["dataset", "symbol", "interval", "strategy"])
    at(name).addEventListener("change", () => {
      state[name] = at(name).value;
      choose();
    });
  at("features").addEventListener("change", () => {
    state.chosen = [...at("features").querySelectorAll("input:checked")].map((box) => box.value);
    showCount();
    toAddress();
    redraw();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") at("features-box").open = false;
  });
  stream.open();
  load();
}

start();
