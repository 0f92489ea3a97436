import { expect } from 'vitest'

/** What every panel of a dashboard of Grafana has. */
export interface PlacedPanel {
  readonly id: number
  readonly title: string
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number }
}

/** Expects panels to have ids of their own, to lie within the 24 columns of Grafana, and not to overlap. */
export function expectLayout(panels: readonly PlacedPanel[]): void {
  expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length)
  expect(panels.length).toBeGreaterThan(25)
  const overlaps = panels.flatMap((a) =>
    panels
      .filter(
        (b) =>
          a.id < b.id &&
          a.gridPos.x < b.gridPos.x + b.gridPos.w &&
          b.gridPos.x < a.gridPos.x + a.gridPos.w &&
          a.gridPos.y < b.gridPos.y + b.gridPos.h &&
          b.gridPos.y < a.gridPos.y + a.gridPos.h,
      )
      .map((b) => [a.title, b.title]),
  )
  expect(overlaps).toEqual([])
  for (const { gridPos } of panels) expect(gridPos.x + gridPos.w).toBeLessThanOrEqual(24)
}
