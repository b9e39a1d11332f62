// Numbers and times as people read them; times are UTC.

export function number(value, digits) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  const places = digits ?? (size >= 1000 ? 2 : size >= 1 ? 4 : 6);
  return value.toLocaleString("en", { minimumFractionDigits: Math.min(2, places), maximumFractionDigits: places });
}

// Quantities, of which most are whole.
export function amount(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  return value.toLocaleString("en", { maximumFractionDigits: Math.abs(value) >= 1000 ? 2 : 4 });
}

export function time(text) {
  if (!text) return "–";
  return text.replace("T", " ").replace(/(:\d\d)(:\d\d)?(\.\d+)?(Z|\+00:00)?$/, "$1");
}

export function seconds(text) {
  return Math.floor(Date.parse(text) / 1000);
}

export function age(value) {
  if (value === null || value === undefined) return "no price";
  if (value < 1) return "now";
  const steps = [[60, "s", 1], [3600, "min", 60], [86400, "h", 3600], [86400 * 60, "days", 86400], [86400 * 730, "months", 86400 * 30]];
  for (const [limit, word, unit] of steps) if (value < limit) return `${Math.round(value / unit)} ${word} ago`;
  return `${Math.round(value / 86400 / 365)} years ago`;
}
