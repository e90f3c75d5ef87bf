// The few d3 functions that the widgets use; esbuild leaves out everything else.
export { axisBottom, axisLeft } from "d3-axis";
export { scaleBand, scaleLinear, scaleLog, scalePoint } from "d3-scale";
export { select } from "d3-selection";
export { area, curveLinear, curveMonotoneX, curveStepAfter, line } from "d3-shape";
