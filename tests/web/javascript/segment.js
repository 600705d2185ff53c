// Copyright 2026 The DenseCLIP for Transformers authors.
// SPDX-License-Identifier: Apache-2.0
// What the library makes of pictures, as plain values: the same in Node.js and in a page.

/**
 * @param {object} library `@huggingface/transformers`.
 * @param {object[]} jobs Of each one a `model`, `options` of `pipeline`, and `images`: paths or addresses.
 * @returns {Promise<object[]>} Of each job the `dtype` that was taken, and of each image its segments, and the
 *     seconds that they took, reading included.
 */
export async function segment(library, jobs) {
    const results = [];
    for (const { model, options, images } of jobs) {
        const segmenter = await library.pipeline('image-segmentation', model, options);
        const [found, seconds] = [[], []];
        for (const image of images) {
            const start = performance.now();
            const segments = await segmenter(image);
            seconds.push((performance.now() - start) / 1000);
            found.push(segments.map(describe));
        }
        results.push({ dtype: segmenter.model.sessions.model.config.dtype, found, seconds });
        await segmenter.dispose();
    }
    return results;
}

function describe({ label, score, mask }) {
    const bytes = Array.from(mask.data, (value) => String.fromCharCode(value)).join('');
    return { label, score, width: mask.width, height: mask.height, mask: btoa(bytes) };
}
