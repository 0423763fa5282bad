"use strict";
const table = document.querySelector("table.sortable");
if (table) {
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const search = document.querySelector("#search");
  const only = document.querySelector("#flagged");
  const shown = document.querySelector("#shown");
  const key = (row, column) => row.cells[column].dataset.v ?? row.cells[column].textContent.trim();
  const compare = (a, b, numeric) => numeric
    ? (a === "" ? 1 : b === "" ? -1 : Number(a) - Number(b))
    : a.localeCompare(b, undefined, { numeric: true });
  table.tHead.querySelectorAll("button").forEach((button) => {
    button.addEventListener("click", () => {
      const head = button.parentElement;
      const column = head.cellIndex;
      const numeric = head.classList.contains("n");
      const down = head.getAttribute("aria-sort") === "ascending";
      table.tHead.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keyed = rows.map((row) => [key(row, column), row]);
      keyed.sort(([a], [b]) => (a === "" || b === "" || !down ? compare(a, b, numeric) : compare(b, a, numeric)));
      body.append(...keyed.map(([, row]) => row));
    });
  });
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    rows.forEach((row, i) => {
      const fits = words.every((word) => texts[i].includes(word)) && (!only.checked || row.dataset.flagged === "1");
      row.hidden = !fits;
      count += fits;
    });
    shown.textContent = `${count} of ${rows.length} slide${rows.length === 1 ? "" : "s"}`;
  };
  search.addEventListener("input", filter);
  only.addEventListener("change", filter);
  filter();
}
