let shown = '';

function close() {
  shown = '';
  trigger('clear');
  const card = document.querySelector('#m3p-results [aria-current]');
  if (card) card.focus();
}

// A visitor's own picture never comes back from the server.
function refresh() {
  for (const image of element.querySelectorAll('img[data-own]')) {
    if (!image.src) image.src = document.body.dataset.m3pOwn || '';
  }
  const title = element.querySelector('h2');
  const image = element.querySelector('img');
  const now = title && image ? title.textContent + image.src : '';
  if (now && now !== shown && innerWidth < 900) {
    element.scrollIntoView({block: 'start'});
  }
  shown = now;
}

watch('value', refresh);
element.addEventListener('click', event => {
  if (event.target.closest('.m3p-close')) close();
});
document.addEventListener('keydown', event => {
  if (event.key === 'Escape' && shown) close();
});
