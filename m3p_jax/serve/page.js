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
let asked = '';
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
  say('');
  return searching.signal;
}

async function search() {
  const signal = begin();
  asked = query.value.trim();
  showDetail('');
  results.querySelector('[aria-current]')?.removeAttribute('aria-current');
  results.setAttribute('aria-busy', 'true');
  const mode = new FormData(form).get('mode');
  const address = `search?${new URLSearchParams({query: asked, mode})}`;
  for await (const part of answers(address, {signal})) update(part);
  if (!signal.aborted) results.removeAttribute('aria-busy');
}

async function show(chosen) {
  for (const other of results.querySelectorAll('[aria-current]')) {
    other.removeAttribute('aria-current');
  }
  chosen.setAttribute('aria-current', 'true');
  showing.abort();
  showing = new AbortController();
  const signal = showing.signal;
  const wanted = new URLSearchParams([['query', asked], ...chosenLanguages()]);
  const address = `picture/${chosen.dataset.key}/detail?${wanted}`;
  for await (const part of answers(address, {signal})) update(part);
}

// A picture is sent as it is; its own copy is what the page goes on showing.
async function look(picture) {
  if (!picture) return;
  const signal = begin();
  showing = searching;  // Whoever closes the panel wants no more of it.
  own.hidden = true;
  const limit = Number(zone.dataset.limit);
  if (picture.size > limit) {
    say(`The file is larger than ${Math.round(limit / 2 ** 20)} MB: ` +
        'make it smaller first.');
    return;
  }
  zone.classList.add('m3p-working');
  const wanted = new URLSearchParams(chosenLanguages());
  const options = {signal, method: 'POST', body: picture};
  for await (const part of answers(`look?${wanted}`, options)) {
    if (own.hidden) begun(picture);
    update(part);
  }
}

function begun(picture) {
  asked = '';
  if (own.src) URL.revokeObjectURL(own.src);
  own.src = URL.createObjectURL(picture);
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
document.querySelector('#m3p-mode').addEventListener('change', search);
results.addEventListener('click', event => {
  const example = event.target.closest('[data-query]');
  if (example) {
    query.value = example.dataset.query;
    search();
  }
  const chosen = event.target.closest('[data-key]');
  if (chosen) show(chosen);
});
panel.addEventListener('click', event => {
  if (event.target.closest('.m3p-close')) close();
});

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
