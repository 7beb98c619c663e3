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

// "/" goes to the query.
document.addEventListener('keydown', event => {
  const typing = event.target.closest('input, textarea, [contenteditable]');
  const query = document.querySelector('#m3p-query :is(textarea, input)');
  if (event.key === '/' && query && !typing) {
    event.preventDefault();
    query.focus();
  }
});
