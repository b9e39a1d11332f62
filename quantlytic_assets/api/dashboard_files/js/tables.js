// Tables: the same content as the charts, for whoever reads rather than looks.

// columns: [title, row => text, class?][]
export function fill(table, columns, rows, empty = "Nothing here yet.") {
  const head = document.createElement("thead");
  const line = head.insertRow();
  for (const [title, , kind] of columns) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = title;
    if (kind) cell.className = kind;
    line.append(cell);
  }
  const body = document.createElement("tbody");
  for (const row of rows) {
    const line = body.insertRow();
    for (const [, text, kind] of columns) {
      const cell = line.insertCell();
      cell.textContent = text(row);
      if (kind) cell.className = kind;
      if (row.mark === "up" || row.mark === "down") cell.classList.add("has-mark");
    }
  }
  if (!rows.length) {
    const cell = body.insertRow().insertCell();
    cell.colSpan = columns.length;
    cell.textContent = empty;
  }
  table.replaceChildren(head, body);
}

const LEVELS = [[0, "l0"], [0.01, "l1"], [0.1, "l2"], [1, "l3"]];

// A cell a symbol and session: what is missing, as a colour, a sign and words.
export function heat(table, coverage) {
  const head = document.createElement("thead");
  const top = head.insertRow();
  const corner = document.createElement("th");
  corner.scope = "col";
  corner.textContent = coverage.months ? "Month" : "Session";
  top.append(corner);
  const every = Math.max(1, Math.ceil(coverage.days.length / 12), 5);
  coverage.days.forEach((day, at) => {
    const cell = document.createElement("th");
    cell.scope = "col";
    const short = coverage.months ? day.slice(0, 7) : day.slice(5);
    if (at % every === 0) cell.textContent = short;
    else {
      const words = document.createElement("span");
      words.className = "hidden";
      words.textContent = day;
      cell.append(words);
    }
    top.append(cell);
  });
  const body = document.createElement("tbody");
  for (const row of coverage.days.length ? coverage.rows : []) {
    const line = body.insertRow();
    const name = document.createElement("th");
    name.scope = "row";
    name.textContent = row.symbol;
    line.append(name);
    row.cells.forEach((found, at) => {
      const cell = line.insertCell();
      let words = `${row.symbol} ${coverage.days[at]}: not known`;
      let sign = "";
      cell.className = "none";
      if (found) {
        const [expected, present, causes] = found;
        const missing = Math.max(0, expected - present);
        const share = expected ? missing / expected : 0;
        cell.className = LEVELS.find(([limit]) => share <= limit)[1];
        words = missing ? `${missing} of ${expected} bars missing, ${causes.join(", ") || "cause unknown"}` : "complete";
        words = `${row.symbol} ${coverage.days[at]}: ${words}`;
        sign = missing ? (share > 0.1 ? "✕" : "·") : "";
      }
      cell.title = words;
      const spoken = document.createElement("span");
      spoken.className = "hidden";
      spoken.textContent = words;
      cell.append(sign, spoken);
    });
  }
  if (!coverage.days.length) {
    const cell = body.insertRow().insertCell();
    cell.className = "empty";
    cell.textContent = "Nothing is known of this dataset yet.";
  }
  table.replaceChildren(head, body);
}
