import assert from 'node:assert/strict';
import test from 'node:test';
import { run, settled } from '../../support/fake_page.mjs';

const PAGE = `<body><button id="to-search"></button><textarea id="text"></textarea><input id="line" type="text">
<input id="box" type="checkbox"><dialog id="search" data-failed="The search failed."><form action="/admin/search/">
<input name="q"></form><div id="search-results" hidden></div><p id="search-note"></p></dialog></body>`;
const links = [{ title: 'Tokens', url: '/t/' }];
const results = [{ title: 'carol', detail: 'staff', url: '/c/', links }, { title: 'cora', detail: '', url: '/o/', links: [] }];
const json = { message: '', groups: [{ label: 'People', results }, { label: 'Tools', results: [{ title: 'pay', detail: '', url: '/p/', links: [] }] }] };

async function opened(...answers) {
    const page = run('accounts/static/accounts/search.js', PAGE, { answers });
    const get = (id) => page.document.getElementById(id);
    await get('to-search').fire('click');
    await settled();
    const box = get('search').querySelector('input');
    const chosen = () => get('search-results').querySelectorAll('[aria-selected=true]').map((one) => one.textContent);
    return { ...page, page, get, box, chosen, dialog: get('search'), form: get('search').querySelector('form'), list: get('search-results') };
}

test('opening asks, and shows results in groups', async () => {
    const { list, get, box, sent, dialog, chosen } = await opened({ json });
    assert.equal(dialog.open, true);
    assert.deepEqual(box.done, ['select']);
    assert.equal(sent[0].url, '/admin/search/?q=&format=json');
    assert.equal(sent[0].headers.Accept, 'application/json');
    assert.equal(list.hidden, false);
    assert.equal(box.getAttribute('aria-expanded'), 'true');
    const options = list.querySelectorAll('[role=option]');
    assert.deepEqual(options.map((one) => [one.textContent, one.href, one.className, one.id]), [
        ['carol staff', '/c/', '', 'search-option-1'], ['carol: Tokens', '/t/', 'further', 'search-option-2'],
        ['cora', '/o/', '', 'search-option-3'], ['pay', '/p/', '', 'search-option-4']]);
    assert.deepEqual(list.querySelectorAll('.kind').map((one) => one.textContent), ['People', 'Tools']);
    assert.deepEqual(list.querySelectorAll('[role=group]').map((one) => one.getAttribute('aria-labelledby')), ['search-kind-0', 'search-kind-1']);
    assert.deepEqual(chosen(), ['carol staff']);
    assert.equal(box.getAttribute('aria-activedescendant'), 'search-option-1');
    assert.equal(get('search-note').textContent, '');
});

test('without results the message is shown', async () => {
    const { list, get, box } = await opened({ json: { message: 'Nothing matches.', groups: [] } });
    assert.equal(list.hidden, true);
    assert.equal(box.getAttribute('aria-expanded'), 'false');
    assert.equal(box.getAttribute('aria-activedescendant'), null);
    assert.equal(get('search-note').textContent, 'Nothing matches.');
});

test('a new search without results forgets the chosen option', async () => {
    const { box, list, form } = await opened({ json }, { json: { message: '', groups: [] } });
    assert.deepEqual(list.querySelector('[role=option]').done, ['scrollIntoView']);
    box.value = 'x';
    await form.fire('submit');
    await settled();
    assert.equal(box.getAttribute('aria-activedescendant'), null);
    assert.deepEqual(list.querySelectorAll('a'), []);
});

test('a failed answer is said in the words of the page', async () => {
    const { get } = await opened({ text: '<html>' });
    assert.equal(get('search-note').textContent, 'The search failed.');
});

test('arrows choose the next option, round the ends', async () => {
    const { box, chosen } = await opened({ json });
    const found = [];
    for (const key of ['ArrowDown', 'ArrowDown', 'ArrowUp', 'ArrowUp', 'ArrowUp', 'ArrowDown']) {
        assert.equal((await box.fire('keydown', { key })).prevented, true);
        found.push(...chosen());
    }
    assert.deepEqual(found, ['carol: Tokens', 'cora', 'carol: Tokens', 'carol staff', 'pay', 'carol staff']);
    assert.equal((await box.fire('keydown', { key: 'x' })).prevented, false);
    assert.equal((await box.fire('keydown', { key: 'ArrowDown', isComposing: true })).prevented, false);
});

test('typing asks after a delay, with single spaces', async () => {
    const { box, timers, sent } = await opened({ json }, { json });
    box.value = '  two   words ';
    await box.fire('input');
    await box.fire('input');
    const [timer, ...others] = timers.filter(Boolean);
    assert.deepEqual([others.length, timer.wait, sent.length], [0, 150, 1]);
    await timer.act();
    assert.equal(sent[1].url, '/admin/search/?q=two+words&format=json');
    assert.equal(sent[0].signal.aborted, true);
    assert.equal(sent[1].signal.aborted, false);
});

test('Enter opens the chosen result', async () => {
    const { form, page, dialog } = await opened({ json });
    assert.equal((await form.fire('submit')).prevented, true);
    assert.deepEqual([page.location.href, dialog.open], ['/c/', false]);
});

test('Enter before the results waits for them', async () => {
    const { form, page, box } = await opened({ json }, { json });
    box.value = 'c';
    await form.fire('submit');
    assert.equal(page.location.href, undefined);
    await settled();
    assert.equal(page.location.href, '/c/');
});

test('typing after Enter opens nothing by itself', async () => {
    const { form, page, box, timers } = await opened({ json }, { json }, { json });
    box.value = 'c';
    await form.fire('submit');
    await box.fire('input');
    await settled();
    await timers.at(-1).act();
    assert.equal(page.location.href, undefined);
});

test('Enter without results opens the page of the search', async () => {
    const none = { json: { message: '', groups: [] } };
    const { form, box, page } = await opened(none, none);
    await form.fire('submit');
    assert.deepEqual(form.done, []);
    box.value = 'x';
    await form.fire('submit');
    await settled();
    assert.deepEqual([form.done, page.location.href], [['submit'], undefined]);
});

test('keys open it, except in a field', async () => {
    for (const [more, id, opens] of [
        [{ key: 'k', ctrlKey: true }, 'line', true], [{ key: 'k', metaKey: true }, 'line', true],
        [{ key: 'ㅏ', code: 'KeyK', ctrlKey: true }, 'line', true], [{ key: 'k' }, 'box', false],
        [{ key: 'k', ctrlKey: true, shiftKey: true }, 'box', false], [{ key: 'k', ctrlKey: true, altKey: true }, 'box', false],
        [{ key: 'k', ctrlKey: true, isComposing: true }, 'box', false], [{ key: '/' }, 'to-search', true],
        [{ key: '/' }, 'box', true], [{ key: '/' }, 'line', false], [{ key: '/' }, 'text', false],
        [{ key: '/', ctrlKey: true }, 'box', false], [{ key: '/', metaKey: true }, 'box', false],
    ]) {
        class HTMLInputElement { static [Symbol.hasInstance](one) { return one.tag === 'input'; } }
        const { document } = run('accounts/static/accounts/search.js', PAGE, { answers: [{ json }], HTMLInputElement });
        const event = await document.fire('keydown', { ...more, target: document.getElementById(id) });
        assert.deepEqual([document.getElementById('search').open, event.prevented], [opens, opens], JSON.stringify([more, id]));
    }
});

test('a click beside the dialog closes it', async () => {
    const { dialog, form } = await opened({ json });
    await dialog.fire('click', { target: form });
    assert.equal(dialog.open, true);
    await dialog.fire('click');
    assert.equal(dialog.open, false);
});
