
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
// Of the kinds in one group a row has at most one: any that is ticked will do. Groups narrow each other down.
const groups = ["rwu", "bc", "p", "s"];
let sorted = "", order = rows, most = MORE;

function apply() {
  const ticked = new FormData(form).getAll("show");
  const wanted = groups.map(group => ticked.filter(kind => group.includes(kind))).filter(kinds => kinds.length);
  const type = types.indexOf(form.type?.value), words = form.find.value.toLowerCase().trim();
  if (form.sort.value !== sorted) {
    sorted = form.sort.value;
    order = sorted ? [...rows].sort(orders[sorted]) : rows;
    body.append(...order.map(one => one.row));
  }
  let count = 0;
  for (const one of order) {
    const fits = wanted.every(kinds => kinds.some(kind => one.kinds.includes(kind))) && !(type >= 0 && one.type !== type)
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
    const value = given.get(field.name) ?? "";
    if (field.type === "checkbox") {
      field.checked = value.includes(field.value);
      continue;
    }
    field.value = value;
    if (field.selectedIndex === -1) field.value = "";
  }
  apply();
}

function write() {
  most = MORE;
  const fields = new FormData(form);
  fields.set("show", fields.getAll("show").join(""));
  const given = new URLSearchParams([...fields].filter(([, value]) => value));
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
