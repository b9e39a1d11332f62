// The charts: candles with volume, features and marks, and an account's equity.

import {
  AreaSeries, CandlestickSeries, createChart, createSeriesMarkers, HistogramSeries, LineSeries,
} from "../vendor/lightweight-charts.standalone.production.mjs";
import { seconds } from "./format.js";

const COLOURS = ["#3f7fd9", "#b0721b", "#8a5bd1", "#1f9a9a", "#c2478f", "#6d8f1f", "#d0652f", "#6b7c93"];

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function looks() {
  return {
    autoSize: true,
    layout: { background: { color: colour("--card") }, textColor: colour("--text"), fontSize: 12, panes: { separatorColor: colour("--line") } },
    grid: { vertLines: { color: colour("--line") }, horzLines: { color: colour("--line") } },
    rightPriceScale: { borderColor: colour("--line") },
    timeScale: { borderColor: colour("--line"), timeVisible: true, secondsVisible: false, rightOffset: 3 },
  };
}

function candleColours() {
  const [up, down] = [colour("--up"), colour("--down")];
  return { upColor: up, downColor: down, borderUpColor: up, borderDownColor: down, wickUpColor: up, wickDownColor: down };
}

export class PriceChart {
  constructor(place, onMove) {
    this.chart = createChart(place, looks());
    this.candles = this.chart.addSeries(CandlestickSeries, candleColours());
    this.volume = this.chart.addSeries(HistogramSeries, { priceScaleId: "volume", priceFormat: { type: "volume" }, lastValueVisible: false, priceLineVisible: false });
    this.chart.priceScale("volume").applyOptions({ scaleMargins: { top: 0.82, bottom: 0 } });
    this.candles.priceScale().applyOptions({ scaleMargins: { top: 0.08, bottom: 0.22 } });
    this.marks = createSeriesMarkers(this.candles, []);
    this.lines = new Map();
    this.chart.subscribeCrosshairMove((event) => onMove(event.time ?? null));
  }

  candle(row) {
    return { time: seconds(row.t), open: row.o, high: row.h, low: row.l, close: row.c };
  }

  bar(row) {
    return { time: seconds(row.t), value: row.v ?? 0, color: (row.c >= row.o ? colour("--up") : colour("--down")) + "66" };
  }

  show(bars, daily, precise) {
    const digits = precise > 0 ? Math.max(2, Math.min(8, Math.ceil(4 - Math.log10(precise)))) : 2;
    this.candles.applyOptions({ priceFormat: { type: "price", precision: digits, minMove: 10 ** -digits } });
    this.chart.applyOptions({ timeScale: { timeVisible: !daily } });
    this.candles.setData(bars.map((row) => this.candle(row)));
    this.volume.setData(bars.map((row) => this.bar(row)));
    this.fit(bars.length);
  }

  fit(count) {
    const shown = Math.min(count, Math.max(40, Math.floor(this.chart.timeScale().width() / 7)));
    this.chart.timeScale().setVisibleLogicalRange({ from: count - shown, to: count + 3 });
  }

  // Only the newest one may change.
  update(row) {
    this.candles.update(this.candle(row));
    this.volume.update(this.bar(row));
  }

  // named: [{name, overlay}]; rows: of features, oldest first
  features(named, rows) {
    for (const line of this.lines.values()) this.chart.removeSeries(line.series);
    this.lines.clear();
    let pane = 0;
    named.forEach(({ name, overlay }, at) => {
      const options = { color: COLOURS[at % COLOURS.length], lineWidth: 1.5, priceLineVisible: false, lastValueVisible: !overlay, title: overlay ? "" : name, crosshairMarkerVisible: false };
      const series = this.chart.addSeries(LineSeries, options, overlay ? 0 : ++pane);
      series.setData(rows.map((row) => this.point(row, name)));
      this.lines.set(name, { series, color: options.color });
    });
    const panes = this.chart.panes();
    panes.forEach((one, at) => one.setStretchFactor(at === 0 ? 4 : 1));
  }

  point(row, name) {
    const value = row[name];
    return value === undefined || value === null ? { time: seconds(row.t) } : { time: seconds(row.t), value };
  }

  updateFeatures(row) {
    for (const [name, line] of this.lines) line.series.update(this.point(row, name));
  }

  // marks: [{t, side: "buy" | "sell", kind: "signal" | "fill", text}]
  setMarks(marks) {
    this.marks.setMarkers(
      marks.map(({ t, side, kind, text }) => ({
        time: seconds(t),
        position: side === "buy" ? "belowBar" : "aboveBar",
        color: side === "buy" ? colour("--up") : colour("--down"),
        shape: kind === "fill" ? (side === "buy" ? "arrowUp" : "arrowDown") : "circle",
        size: kind === "fill" ? 1.2 : 0.6,
        text,
      })),
    );
  }

  paint(bars) {
    this.chart.applyOptions(looks());
    this.candles.applyOptions(candleColours());
    this.volume.setData(bars.map((row) => this.bar(row)));
  }
}

export class EquityChart {
  constructor(place) {
    this.chart = createChart(place, looks());
    // Years of sessions fit into a narrow card.
    this.chart.applyOptions({ timeScale: { timeVisible: false, minBarSpacing: 0.01 } });
    this.series = this.chart.addSeries(AreaSeries, { ...this.area(), priceFormat: { type: "price", precision: 0, minMove: 1 }, lineWidth: 2 });
  }

  area() {
    const accent = colour("--accent");
    return { lineColor: accent, topColor: `${accent}55`, bottomColor: `${accent}08` };
  }

  show(curve) {
    this.series.setData(curve.map(([day, value]) => ({ time: day.slice(0, 10), value })));
    this.chart.timeScale().fitContent();
  }

  paint() {
    this.chart.applyOptions(looks());
    this.chart.applyOptions({ timeScale: { timeVisible: false } });
    this.series.applyOptions(this.area());
  }
}
