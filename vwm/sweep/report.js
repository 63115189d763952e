// A click on a head sorts its table; numbers by their full value, words as words. Holes stay at the end.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement;
    const table = head.closest("table");
    const column = [...head.parentElement.children].indexOf(head);
    const descending = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const isNumber = head.classList.contains("number");
    const key = (row) => {
      const cell = row.children[column];
      return isNumber ? parseFloat(cell.dataset.sort) : cell.textContent;
    };
    const order = (a, b) => {
      if (!isNumber) return a[0].localeCompare(b[0], undefined, { numeric: true });
      if (Number.isNaN(a[0]) || Number.isNaN(b[0])) return 0;
      return a[0] - b[0];
    };
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [key(row), row]);
    const holes = rows.filter(([value]) => Number.isNaN(value));
    const found = rows.filter(([value]) => !Number.isNaN(value)).sort(order);
    if (descending) found.reverse();
    body.append(...[...found, ...holes].map(([, row]) => row));
  });
}
