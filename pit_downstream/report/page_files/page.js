// A click on a heading sorts its table by that column, a second click the other way; gaps stay last.
document.querySelectorAll('th button').forEach((button) => button.addEventListener('click', () => {
  const head = button.closest('th'), body = head.closest('table').tBodies[0], column = head.cellIndex;
  const falling = head.getAttribute('aria-sort') === 'ascending';
  head.parentNode.querySelectorAll('th').forEach((other) => other.removeAttribute('aria-sort'));
  head.setAttribute('aria-sort', falling ? 'descending' : 'ascending');
  const key = (row) => row.cells[column].dataset.value, text = (row) => row.cells[column].textContent.trim();
  const compare = (a, b) => {
    if ((key(a) === undefined) !== (key(b) === undefined)) return key(a) === undefined ? 1 : -1;
    const order = key(a) === undefined ? text(a).localeCompare(text(b)) : key(a) - key(b);
    return falling ? -order : order;
  };
  [...body.rows].sort(compare).forEach((row) => body.append(row));
}));
addEventListener('beforeprint', () => document.querySelectorAll('details').forEach((details) => { details.open = true; }));
