
"use strict";
// Filters stand in the address behind #, so that a view can be sent to somebody.
const form = document.querySelector("form");
const body = document.querySelector("#answers tbody");
const rows = [...body.rows].map(row => ({
  row, text: row.textContent.toLowerCase(), kinds: row.dataset.k || "", type: Number(row.dataset.t),
  sure: Number(row.lastElementChild.textContent.trim() || -1), place: Number(row.dataset.n),
}));
const types = form.type ? [...form.type.options].slice(1).map(option => option.value) : [];
const orders = {
  row: (a, b) => a.place - b.place,
  up: (a, b) => a.sure - b.sure || a.place - b.place,
  down: (a, b) => b.sure - a.sure || a.place - b.place,
};
let sorted = "";

function apply() {
  const show = form.show?.value, type = types.indexOf(form.type?.value), words = form.find.value.toLowerCase().trim();
  let count = 0;
  for (const one of rows) {
    const hidden = Boolean(show && !one.kinds.includes(show)) || (type >= 0 && one.type !== type)
      || Boolean(words && !one.text.includes(words));
    one.row.hidden = hidden;
    count += !hidden;
  }
  if (form.sort.value !== sorted) {
    sorted = form.sort.value;
    body.append(...(sorted ? [...rows].sort(orders[sorted]) : rows).map(one => one.row));
  }
  form.querySelector("output").value = `${count.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`;
}

function read() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const field of form.elements) {
    if (!field.name) continue;
    field.value = given.get(field.name) ?? "";
    if (field.selectedIndex === -1) field.value = "";
  }
  apply();
}

function write() {
  const given = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
  try {
    history.replaceState(null, "", `#${given}`);
  } catch {
    // Inside another page, such as a notebook, it has no address of its own.
  }
  apply();
}

form.hidden = false;
form.addEventListener("input", write);
form.addEventListener("submit", event => event.preventDefault());
window.addEventListener("hashchange", () => {
  read();
  if (location.hash.includes("=")) document.querySelector("#rows").scrollIntoView();
});
read();
