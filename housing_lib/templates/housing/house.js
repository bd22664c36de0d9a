// Tables can be sorted by the name of a column, and copied. Without this they simply stand there.
function number(text) {
  const plain = text.replace(/[$,\s%]/g, "").replace("−", "-");
  return plain && Number.isFinite(+plain) ? +plain : null;
}
function inOrder(a, b) {
  if (!a || !b || a === "–" || b === "–") return (!a || a === "–") - (!b || b === "–");
  const [x, y] = [number(a), number(b)];
  return x === null || y === null ? a.localeCompare(b, "en", { numeric: true }) : x - y;
}
function sort(table, name) {
  const words = row => row.cells[name.cellIndex].dataset.sort ?? row.cells[name.cellIndex].textContent.trim();
  const down = name.ariaSort === "ascending" ? -1 : 1;
  const rows = [...table.tBodies[0].rows].sort((a, b) => down * inOrder(words(a), words(b)));
  table.tBodies[0].append(...rows);
  for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
  name.ariaSort = down === 1 ? "ascending" : "descending";
}
function letSort(table) {
  if (!table.tHead || table.querySelector("tbody [rowspan], thead [colspan]") || table.rows.length < 3) return;
  for (const name of table.tHead.querySelectorAll("th")) {
    if (!name.textContent.trim()) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...name.childNodes);
    button.addEventListener("click", () => sort(table, name));
    name.append(button);
  }
}
function write(text) {
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
function plain(cell) {
  const copied = cell.cloneNode(true);
  for (const aside of copied.querySelectorAll("small")) aside.remove(); // or the number would be a text
  return copied.textContent.trim().replace(/\u00a0/g, " ");
}
async function copy(table, button) {
  const text = [...table.rows].map(row => [...row.cells].map(plain).join("\t")).join("\n");
  try { await navigator.clipboard.writeText(text); } catch { write(text); }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy table"; }, 2000);
}
for (const table of document.querySelectorAll(".scroll > table")) {
  if (!table.tBodies[0]?.rows.length) continue;
  letSort(table);
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy table";
  button.addEventListener("click", () => copy(table, button));
  table.parentElement.after(button);
}
