/**
 * The most different values of a label, and the most series of a metric of this process. A series of a histogram has seventeen lines. What is
 * beyond has the value `_OTHER`.
 */
export const bounds = {
  types: 200,
  subscriptions: 200,
  errorTypes: 50,
  services: 100,
  versions: 20,
  counterSeries: 2000,
  histogramSeries: 200,
} as const
