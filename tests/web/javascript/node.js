// Copyright 2026 The DenseCLIP for Transformers authors.
// SPDX-License-Identifier: Apache-2.0
// Reads `{"hub": null | {"remoteHost": address, "cacheDir": folder}, "jobs": [...]}` and prints what `segment` returns.
import { readFileSync } from 'node:fs';

import * as library from '@huggingface/transformers';

import { segment } from './segment.js';

const { hub, jobs } = JSON.parse(readFileSync(0, 'utf8'));
library.env.allowRemoteModels = hub !== null;
library.env.useFSCache = hub !== null; // a model of the Hub is opened from there
Object.assign(library.env, hub);
console.log(JSON.stringify(await segment(library, jobs)));
