// Tokens in the cache of requests that are being served: of a trace's requests, evenly through the file, prompt and half the answer.
// `traceShape` of these files gives the same lists.

/**
 * Azure's conversation service, 2023: 128 of 19 366 requests. From AzureLLMInferenceTrace_conv.csv of
 * https://github.com/Azure/AzurePublicDataset (commit b469a113), by Microsoft, CC BY 4.0
 * (https://creativecommons.org/licenses/by/4.0/); changed: these sums alone. P. Patel et al., "Splitwise: Efficient generative LLM
 * inference using phase splitting", ISCA 2024.
 */
// biome-ignore format: a list
export const AZURE_CONVERSATION: readonly number[] = [
  396, 1136, 1313, 247, 446, 411, 438, 407, 1418, 1930, 1290, 462, 1194, 4156, 1283, 1312, 471, 1261, 4095, 1344,
  1386, 1281, 471, 886, 2653, 1189, 1294, 415, 977, 442, 1211, 298, 2659, 445, 436, 1330, 309, 1397, 409, 442, 1242,
  453, 450, 1227, 4093, 254, 409, 4103, 450, 4126, 420, 439, 1465, 1283, 1272, 4131, 1282, 404, 1297, 1071, 1393,
  2108, 4099, 475, 1383, 453, 441, 450, 428, 4115, 461, 416, 423, 453, 2427, 399, 448, 486, 1157, 1421, 466, 1345,
  1275, 459, 448, 2286, 265, 1777, 1250, 303, 1252, 1006, 1399, 951, 248, 1261, 1290, 347, 264, 1122, 1828, 1270,
  2371, 443, 1095, 468, 318, 324, 473, 312, 1258, 1314, 666, 441, 444, 295, 304, 1267, 1458, 443, 306, 1201, 899,
  1211, 293, 1331, 1467, 289,
]

/**
 * Kimi's conversations: 64 of 12 031 requests. From FAST25-release/traces/conversation_trace.jsonl of
 * https://github.com/kvcache-ai/Mooncake (commit 3b5a5941), Apache-2.0; changed: these sums alone.
 */
// biome-ignore format: a list
export const MOONCAKE_CONVERSATION: readonly number[] = [
  7008, 1405, 81628, 6178, 1472, 1265, 1210, 26549, 4222, 23504, 31127, 3675, 14358, 2190, 6666, 18193, 4160, 1092,
  24311, 10693, 8869, 27836, 7535, 1090, 5795, 11615, 5080, 1172, 1058, 41833, 9557, 31886, 60543, 4803, 9408, 18960,
  8642, 2818, 14791, 8447, 4490, 5481, 1124, 1673, 1799, 13893, 1483, 14600, 18944, 1283, 28046, 11638, 11147, 25940,
  22050, 4020, 4815, 24899, 10120, 10023, 10987, 3626, 11537, 21028,
]
