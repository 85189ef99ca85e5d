// Tables that are sorted by a click on a head.

/** Return the order of the items: numerical or alphabetical by their keys, missing values last. */
function order(items, key, descending) {
  const isNumeric = items.every((item) => key(item) === "" || !Number.isNaN(Number(key(item))));
  const compare = (a, b) => (isNumeric ? Number(a) - Number(b) : a.localeCompare(b, undefined, { numeric: true }));
  return [...items].sort((one, other) => {
    const [a, b] = [key(one), key(other)];
    if (a === "" || b === "") return Number(a === "") - Number(b === "");
    return descending ? compare(b, a) : compare(a, b);
  });
}

/** Sort the rows when the head of a column is clicked, and the columns when the head of a row is clicked. */
function makeSortable(table) {
  const buttons = [...table.querySelectorAll("th > button")];
  const heads = buttons.map((button) => button.parentElement);
  heads.forEach((head, place) => buttons[place].addEventListener("click", () => {
    const descending = head.getAttribute("aria-sort") === "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    if (head.scope === "row") {
      const places = [...head.parentElement.cells].slice(1).map((cell, index) => ({ cell, index: index + 1 }));
      const sorted = order(places, (place) => place.cell.dataset.value, descending).map((place) => place.index);
      for (const row of table.rows) row.append(...sorted.map((index) => row.cells[index]));
    } else {
      const key = (row) => row.cells[head.cellIndex].dataset.value;
      table.tBodies[0].append(...order([...table.tBodies[0].rows], key, descending));
    }
  }));
}
