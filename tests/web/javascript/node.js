// Copyright 2026 The DenseCLIP for Transformers authors.
// SPDX-License-Identifier: Apache-2.0
// Reads `{"remoteHost": null | address, "jobs": [...]}` and prints what `segment` returns.
import { readFileSync } from 'node:fs';

import * as library from '@huggingface/transformers';

import { segment } from './segment.js';

const { remoteHost, jobs } = JSON.parse(readFileSync(0, 'utf8'));
library.env.useFSCache = false;
library.env.allowRemoteModels = remoteHost !== null;
if (remoteHost !== null) {
    library.env.remoteHost = remoteHost;
}
console.log(JSON.stringify(await segment(library, jobs)));
