element.addEventListener('click', event => {
  const example = event.target.closest('[data-query]');
  if (example) trigger('submit', {query: example.dataset.query});
  const card = event.target.closest('[data-number]');
  if (!card) return;
  for (const other of element.querySelectorAll('[aria-current]')) {
    other.removeAttribute('aria-current');
  }
  card.setAttribute('aria-current', 'true');
  trigger('select', {number: Number(card.dataset.number)});
});

// The arrow keys walk over the pictures, row by row.
element.addEventListener('keydown', event => {
  const card = document.activeElement.closest('.m3p-card');
  if (!card) return;
  const cards = [...element.querySelectorAll('.m3p-card')];
  const top = cards[0].getBoundingClientRect().top;
  const columns = cards.filter(
      one => Math.abs(one.getBoundingClientRect().top - top) < 2).length;
  const steps = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns,
                 ArrowUp: -columns};
  const next = cards[cards.indexOf(card) + (steps[event.key] || 0)];
  if (event.key in steps && next) {
    event.preventDefault();
    next.focus();
  }
});

// What is typed may run from right to left; "/" goes to the query.
const query = document.querySelector('#m3p-query textarea, #m3p-query input');
if (query) query.dir = 'auto';
document.addEventListener('keydown', event => {
  const typing = event.target.closest('input, textarea, [contenteditable]');
  if (event.key === '/' && query && !typing) {
    event.preventDefault();
    query.focus();
  }
});
