// Asks the server, which answers with pieces of the page, ever better ones.

const form = document.querySelector('#m3p-form');
const query = document.querySelector('#m3p-query');
const zone = document.querySelector('.m3p-drop');
const file = document.querySelector('#m3p-file');
const own = document.querySelector('.m3p-own');
const refused = document.querySelector('.m3p-error');
const results = document.querySelector('#m3p-results');
const panel = document.querySelector('#m3p-panel');

// What was searched for last; '' = nothing, or a picture.
let asked = query.value.trim();
// The visitor's picture whose like is shown; null = none.
let picture = null;
// What is still being answered: a new question ends the old one.
let searching = new AbortController();
let showing = new AbortController();

class Refused extends Error {}

// Yields the parts of an answer as they come; says where there is none.
async function* answers(address, options) {
  try {
    const response = await fetch(address, options);
    if (!response.ok) {
      const answer = await response.json().catch(() => ({}));
      throw new Refused(answer.detail || 'The server could not answer.');
    }
    const reader = response.body.pipeThrough(
        new TextDecoderStream()).getReader();
    let waiting = '';
    for (;;) {
      const {done, value} = await reader.read();
      if (done) return;
      const lines = (waiting + value).split('\n');
      waiting = lines.pop();
      for (const line of lines) {
        if (options.signal.aborted) return;
        yield JSON.parse(line);
      }
    }
  } catch (error) {
    if (options.signal.aborted) return;
    say(error instanceof Refused ? error.message :
        'The server cannot be reached, or could not answer.');
  }
}

// What is typed and chosen, as the address of the page has it.
function wanted(changes = {}) {
  const fields = [...new FormData(form), ...Object.entries(changes)].filter(
      ([name, value]) => value && !['languages', 'token'].includes(name));
  return new URLSearchParams(Object.fromEntries(fields));
}

function chosenLanguages() {
  return new FormData(form).getAll('languages').map(
      code => ['languages', code]);
}

function say(text) {
  refused.textContent = text;
  refused.hidden = !text;
  zone.classList.remove('m3p-working');
}

function update({results: found, detail, error}) {
  if (error !== undefined) say(error);
  if (found !== undefined) showResults(found);
  if (detail !== undefined) showDetail(detail);
}

// Better results keep the place of whoever walks over them.
function showResults(html) {
  const focused = results.querySelector(':focus')?.dataset.key;
  const current = results.querySelector('[aria-current]')?.dataset.key;
  results.innerHTML = html;
  card(current)?.setAttribute('aria-current', 'true');
  card(focused)?.focus({preventScroll: true});
  watchMore();
}

function card(key) {
  return results.querySelector(`[data-key="${key}"]`);
}

function showDetail(html) {
  const before = panel.querySelector('h2')?.textContent;
  const wasOnClose = panel.querySelector('.m3p-close:focus');
  panel.innerHTML = html;
  for (const image of panel.querySelectorAll('img[data-own]')) {
    image.src = own.src;
  }
  if (wasOnClose) panel.querySelector('.m3p-close')?.focus();
  const title = panel.querySelector('h2');
  if (title && title.textContent !== before && innerWidth < 900) {
    panel.scrollIntoView({block: 'start'});
  }
}

function begin() {
  searching.abort();
  searching = new AbortController();
  showing.abort();
  results.removeAttribute('aria-busy');
  picture = null;
  say('');
  return searching.signal;
}

// `like` is the key of a picture that others are wanted like.
async function search(like = '') {
  const signal = begin();
  if (like) query.value = '';
  asked = query.value.trim();
  showDetail('');
  results.querySelector('[aria-current]')?.removeAttribute('aria-current');
  results.setAttribute('aria-busy', 'true');
  const address = wanted({like});
  history.pushState(null, '', `?${address}`);
  for await (const part of answers(`search?${address}`, {signal})) update(part);
  if (!signal.aborted) results.removeAttribute('aria-busy');
}

// The pictures that come next, below those that are there.
async function more(link) {
  if (link.hasAttribute('aria-busy')) return;
  link.setAttribute('aria-busy', 'true');
  const signal = searching.signal;
  const found = document.createElement('template');
  const address = new URL(link.href).search;
  for await (const part of picture ?
      answers(`look${address}`, {signal, method: 'POST', body: picture}) :
      answers(`search${address}`, {signal})) {
    if (part.results) found.innerHTML = part.results;
    if (part.error !== undefined) say(part.error);
  }
  if (signal.aborted) return;
  const next = found.content.querySelector('.m3p-grid');
  if (next) results.querySelector('.m3p-grid').append(...next.children);
  const following = found.content.querySelector('.m3p-more');
  if (following) link.replaceWith(following);
  else link.remove();
  watchMore();
}

// Whoever scrolls to the end sees more.
const end = new IntersectionObserver(entries => {
  if (entries.some(one => one.isIntersecting)) more(entries[0].target);
}, {rootMargin: '400px'});

function watchMore() {
  end.disconnect();
  const link = results.querySelector('.m3p-more');
  // More of what the joint encoder is still ordering would be mixed up.
  if (link && !results.querySelector('progress')) end.observe(link);
}

async function show(chosen) {
  for (const other of results.querySelectorAll('[aria-current]')) {
    other.removeAttribute('aria-current');
  }
  chosen.setAttribute('aria-current', 'true');
  showing.abort();
  showing = new AbortController();
  const signal = showing.signal;
  const fields = new URLSearchParams([['query', asked], ...chosenLanguages()]);
  const address = `picture/${chosen.dataset.key}/detail?${fields}`;
  for await (const part of answers(address, {signal})) update(part);
}

// A picture is sent as it is; its own copy is what the page goes on showing.
async function look(chosen) {
  if (!chosen) return;
  const signal = begin();
  showing = searching;  // Whoever closes the panel wants no more of it.
  own.hidden = true;
  const limit = Number(zone.dataset.limit);
  if (chosen.size > limit) {
    say(`The file is larger than ${Math.round(limit / 2 ** 20)} MB: ` +
        'make it smaller first.');
    return;
  }
  zone.classList.add('m3p-working');
  const fields = new URLSearchParams([
    ...wanted({query: ''}), ...chosenLanguages()]);
  const options = {signal, method: 'POST', body: chosen};
  for await (const part of answers(`look?${fields}`, options)) {
    if (own.hidden) begun(chosen);
    update(part);
  }
}

function begun(chosen) {
  picture = chosen;
  asked = '';
  if (own.src) URL.revokeObjectURL(own.src);
  own.src = URL.createObjectURL(chosen);
  own.hidden = false;
  zone.classList.remove('m3p-working');
  results.querySelector('[aria-current]')?.removeAttribute('aria-current');
}

function close() {
  showing.abort();
  showDetail('');
  results.querySelector('[aria-current]')?.focus();
}

form.addEventListener('submit', event => {
  event.preventDefault();
  search();
});
for (const id of ['mode', 'filter']) {
  document.querySelector(`#m3p-${id}`)?.addEventListener('change', () => {
    const like = new URLSearchParams(location.search).get('like');
    search(query.value.trim() ? '' : like || '');
  });
}
addEventListener('popstate', () => location.reload());
results.addEventListener('click', event => {
  const example = event.target.closest('[data-query]');
  if (example) {
    query.value = example.dataset.query;
    search();
  }
  const chosen = event.target.closest('[data-key], .m3p-more');
  if (!chosen || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  if (chosen.dataset.key) show(chosen);
  else more(chosen);
});
panel.addEventListener('click', event => {
  if (event.target.closest('.m3p-close')) close();
  const chosen = event.target.closest('[data-key], [data-like]');
  if (chosen && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    if (chosen.dataset.like) search(chosen.dataset.like);
    else show(chosen);
  }
  const copied = event.target.closest('[data-copy]');
  if (copied) copy(copied);
});

// Browsers copy for pages of this machine and of HTTPS alone.
async function copy(button) {
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = 'Copied';
  } catch {
    getSelection().selectAllChildren(panel.querySelector('.m3p-id code'));
    button.textContent = 'Selected: copy it';
  }
}

// The arrow keys walk over the pictures, row by row.
results.addEventListener('keydown', event => {
  const focused = document.activeElement.closest('.m3p-card');
  if (!focused) return;
  const cards = [...results.querySelectorAll('.m3p-card')];
  const top = cards[0].getBoundingClientRect().top;
  const columns = cards.filter(
      one => Math.abs(one.getBoundingClientRect().top - top) < 2).length;
  const steps = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns,
                 ArrowUp: -columns};
  const next = cards[cards.indexOf(focused) + (steps[event.key] || 0)];
  if (event.key in steps && next) {
    event.preventDefault();
    next.focus();
  }
});

watchMore();

// "/" goes to the query, Escape closes the picture.
document.addEventListener('keydown', event => {
  if (event.key === '/' && !event.target.matches('#m3p-query')) {
    event.preventDefault();
    query.focus();
  }
  if (event.key === 'Escape' && panel.firstElementChild) close();
});

file.addEventListener('change', () => {
  look(file.files[0]);
  file.value = '';
});
// A picture may be dropped anywhere: a browser would leave the page for it.
for (const name of ['dragenter', 'dragover']) {
  document.addEventListener(name, event => {
    event.preventDefault();
    zone.classList.add('m3p-over');
  });
}
document.addEventListener('dragleave', event => {
  if (!event.relatedTarget) zone.classList.remove('m3p-over');
});
document.addEventListener('drop', event => {
  event.preventDefault();
  zone.classList.remove('m3p-over');
  look(event.dataTransfer.files[0]);
});
document.addEventListener('paste', event => {
  if (event.clipboardData.files.length) look(event.clipboardData.files[0]);
});
