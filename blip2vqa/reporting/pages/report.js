
"use strict";
// Filters stand in the address behind #, so that a view can be sent to somebody.
const form = document.querySelector("form");
const body = document.querySelector("#answers tbody");
const rows = [...body.rows].map(row => ({
  row, text: row.textContent.toLowerCase(), kinds: row.dataset.k || "", type: Number(row.dataset.t),
  sure: row.lastElementChild.textContent.trim() || null, place: Number(row.dataset.n),
}));
const types = form.type ? [...form.type.options].slice(1).map(option => option.value) : [];
const orders = {
  row: (a, b) => a.place - b.place,
  // Rows without a number come last either way.
  up: (a, b) => (a.sure ?? 2) - (b.sure ?? 2) || a.place - b.place,
  down: (a, b) => (b.sure ?? -1) - (a.sure ?? -1) || a.place - b.place,
};
const MORE = 500; // rows that are laid out at a time: tens of thousands would take seconds
const more = document.querySelector("#more");
let sorted = "", order = rows, most = MORE;

function apply() {
  const show = form.show?.value, type = types.indexOf(form.type?.value), words = form.find.value.toLowerCase().trim();
  if (form.sort.value !== sorted) {
    sorted = form.sort.value;
    order = sorted ? [...rows].sort(orders[sorted]) : rows;
    body.append(...order.map(one => one.row));
  }
  let count = 0;
  for (const one of order) {
    const fits = !(show && !one.kinds.includes(show)) && !(type >= 0 && one.type !== type)
      && !(words && !one.text.includes(words));
    count += fits;
    one.row.hidden = !fits || count > most;
  }
  more.hidden = count <= most;
  form.querySelector("output").value = `${count.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`;
}

function read() {
  most = MORE;
  const given = new URLSearchParams(location.hash.slice(1));
  for (const field of form.elements) {
    if (!field.name) continue;
    field.value = given.get(field.name) ?? "";
    if (field.selectedIndex === -1) field.value = "";
  }
  apply();
}

function write() {
  most = MORE;
  const given = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
  try {
    history.replaceState(null, "", `#${given}`);
  } catch {
    // Inside another page, such as a notebook, it has no address of its own.
  }
  apply();
}

form.hidden = false;
more.addEventListener("click", () => { most += MORE; apply(); });
for (const link of document.querySelectorAll('a[href^="#type="]')) {
  link.addEventListener("click", event => { // the other filters stay
    event.preventDefault();
    if (!form.type) return;
    form.type.value = new URLSearchParams(link.hash.slice(1)).get("type");
    write();
    document.querySelector("#rows").scrollIntoView();
  });
}
form.addEventListener("input", write);
form.addEventListener("submit", event => event.preventDefault());
window.addEventListener("hashchange", () => {
  read();
  if (location.hash.includes("=")) document.querySelector("#rows").scrollIntoView();
});
read();
