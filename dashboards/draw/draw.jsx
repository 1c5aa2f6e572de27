// Draws a dashboard as Grafana would: its panels, units, thresholds and mappings with Grafana's own components. Two kinds
// of panels are no part of them, state timelines and tables; those are drawn here, with Grafana's colours and units.
// The page's query says what and of whom: ?dashboard=overview&prometheus=http://…&server=.+&from=…&to=…&rate=15s
import React from 'react';
import {createRoot} from 'react-dom/client';
import {createTheme, FieldType, getDisplayProcessor, ThemeContext, toDataFrame} from '@grafana/data';
import {BigValue, BigValueTextMode, GlobalStyles, PanelChrome, TimeSeries} from '@grafana/ui';
import overview from '../overview.json';
import server from '../server.json';

const asked = new URLSearchParams(location.search);
const dashboard = {overview, server}[asked.get('dashboard')];
const [from, to] = [+asked.get('from'), +asked.get('to')];
const step = Math.max(1, Math.round((to - from) / 240));
const chosen = {
  $__rate_interval: asked.get('rate'), $instance: '.+', $job: '.+', $server: asked.get('server'),
};
const theme = createTheme({colors: {mode: 'dark'}});
const WIDTH = 1800, COLUMN = WIDTH / 24, ROW = 34, GAP = 4;

const filled = text => Object.keys(chosen).sort((a, b) => b.length - a.length)
  .reduce((filling, name) => filling.replaceAll(name, chosen[name]), text);
const legend = (format, labels) => format === '__auto' ? Object.values(labels).join(' ') || 'value'
  : format.replace(/{{\s*(\w+)\s*}}/g, (_, name) => labels[name] ?? '').trim();

async function ask(path, query) {
  const answer = await (await fetch(`${asked.get('prometheus')}/api/v1/${path}?${new URLSearchParams(query)}`)).json();
  if (answer.status !== 'success') throw new Error(answer.error);
  return answer.data.result;
}

const range = async target => (await ask('query_range', {query: filled(target.expr), start: from, end: to, step}))
  .map(series => frame(series, target, series.values));
const instant = async target => (await ask('query', {query: filled(target.expr), time: to}))
  .map(series => frame(series, target, [series.value]));

function frame({metric}, target, values) {
  const name = legend(target.legendFormat, metric);
  return toDataFrame({refId: target.refId, name, fields: [
    {name: 'Time', type: FieldType.time, values: values.map(([time]) => time * 1000)},
    {name: 'Value', type: FieldType.number, values: values.map(([, number]) => Number.isNaN(+number) ? null : +number), labels: metric},
  ]});
}

function display(panel, config) {
  return getDisplayProcessor({field: {type: FieldType.number, config: {...panel.fieldConfig.defaults, ...config}}, theme, timeZone: 'utc'});
}

async function framesOf(panel) {
  const found = (await Promise.all(panel.targets.map(target => target.instant ? instant(target) : range(target)))).flat();
  found.forEach((each, seriesIndex) => each.fields.forEach(field => {
    const named = {displayName: each.name, displayNameFromDS: each.name};
    field.config = field.type === FieldType.number ? {...panel.fieldConfig.defaults, ...named} : named;
    field.state = {seriesIndex, displayName: each.name};
    field.display = getDisplayProcessor({field, theme, timeZone: 'utc'});
  }));
  return found;
}

function Stat({panel, frames, width, height}) {
  if (!frames.length) return <Plain>{panel.fieldConfig.defaults.noValue ?? 'No data'}</Plain>;
  const {colorMode, textMode} = panel.options;
  return <div style={{display: 'flex'}}>{frames.map(({name, fields: [, field]}) => {
    const value = {...field.display(field.values.at(-1)), title: name};
    return <BigValue key={name} value={value} width={width / frames.length} height={height} theme={theme} colorMode={colorMode}
      graphMode="none" justifyMode="auto" textMode={textMode === 'name' ? BigValueTextMode.Name : BigValueTextMode.Value}/>;
  })}</div>;
}

function Graph({frames, width, height}) {
  const time = {from: {valueOf: () => from * 1000}, to: {valueOf: () => to * 1000}, raw: {from: '', to: ''}};
  return <TimeSeries frames={frames} structureRev={1} width={width} height={height} timeRange={time} timeZone="utc"
    legend={{showLegend: true, displayMode: 'list', placement: 'bottom', calcs: []}} options={{}} tweakAxis={axis => axis}/>;
}

function Timeline({frames, height}) {
  return frames.map(({name, fields: [times, field]}) => <div key={name}
    style={{display: 'flex', alignItems: 'center', height: height / frames.length, fontSize: 12}}>
    <div style={{width: 90, textAlign: 'right', paddingRight: 8}}>{name}</div>
    <div style={{position: 'relative', flex: 1, height: '80%'}}>{runs(times.values, field.values).map(([start, end, value]) => {
      const {text, color} = field.display(value);
      const place = at => `${(at - from * 1000) / (to - from) / 10}%`;
      const wide = (end - start) / (to - from) > 50;
      return <div key={start} style={{position: 'absolute', left: place(start), width: place(from * 1000 + end - start), height: '100%',
        background: color, color: '#000', paddingLeft: 4, overflow: 'hidden', boxSizing: 'border-box'}}>{wide ? text : ''}</div>;
    })}</div>
  </div>);
}

function runs(times, values) {
  const found = [];
  times.forEach((time, index) => {
    const last = found.at(-1);
    if (last && last[2] === values[index] && time - last[1] <= step * 1000) last[1] = time + step * 1000;
    else found.push([time, time + step * 1000, values[index]]);
  });
  return found;
}

function Table({panel, frames}) {
  const names = panel.transformations.find(({id}) => id === 'organize').options.renameByName;
  const columns = panel.targets.map(({refId}) => names[`Value #${refId}`]);
  const rows = new Map();
  frames.forEach(({refId, fields: [, {labels, values}]}) =>
    rows.set(labels.server, {...rows.get(labels.server), [names[`Value #${refId}`]]: values[0]}));
  const config = column => Object.fromEntries((panel.fieldConfig.overrides.find(({matcher}) => matcher.options === column)?.properties ?? [])
    .map(({id, value}) => [id, value]));
  const cell = {padding: '2px 12px', borderBottom: `1px solid ${theme.colors.border.weak}`, textAlign: 'right'};
  const cells = columns.map(column => ({column, show: display(panel, config(column)), coloured: 'mappings' in config(column)}));
  return <table style={{width: '100%', fontSize: 13}}>
    <thead><tr><th style={{...cell, textAlign: 'left'}}>{names.server}</th>{columns.map(column => <th key={column} style={cell}>{column}</th>)}</tr></thead>
    <tbody>{[...rows].sort(([, a], [, b]) => a.State - b.State).map(([name, row]) => <tr key={name}>
      <td style={{...cell, textAlign: 'left', color: theme.colors.text.link}}>{name}</td>
      {cells.map(({column, show, coloured}) => {
        const {prefix = '', text, suffix = '', color} = row[column] === undefined ? {text: ''} : show(row[column]);
        return <td key={column} style={{...cell, color: coloured ? color : undefined}}>{prefix}{text}{suffix}</td>;
      })}</tr>)}</tbody>
  </table>;
}

const Plain = ({children}) => <div style={{padding: 16, fontSize: 20, textAlign: 'center', color: theme.colors.text.secondary}}>{children}</div>;
const KINDS = {stat: Stat, timeseries: Graph, 'state-timeline': Timeline, table: Table};

function Drawn({panel, frames}) {
  const {x, y, w, h} = panel.gridPos;
  const place = {position: 'absolute', left: x * COLUMN + GAP, top: y * ROW + GAP, width: w * COLUMN - 2 * GAP, height: h * ROW - 2 * GAP};
  if (panel.type === 'row') return <div style={{...place, color: theme.colors.text.primary, fontSize: 16, paddingTop: 4}}>▾ {panel.title}</div>;
  const Kind = KINDS[panel.type];
  return <div style={place}><PanelChrome title={panel.title} description={panel.description} width={place.width} height={place.height}>
    {(width, height) => frames.length || panel.type === 'stat'
      ? <Kind panel={panel} frames={frames} width={width} height={height}/> : <Plain>No data</Plain>}
  </PanelChrome></div>;
}

const frames = await Promise.all(dashboard.panels.map(panel => panel.type === 'row' ? [] : framesOf(panel)));
const height = Math.max(...dashboard.panels.map(({gridPos: {y, h}}) => y + h)) * ROW + GAP;
createRoot(document.getElementById('page')).render(<ThemeContext.Provider value={theme}>
  <GlobalStyles/>
  <div style={{position: 'relative', width: WIDTH, height, background: theme.colors.background.canvas}}>
    {dashboard.panels.map((panel, index) => <Drawn key={panel.id} panel={panel} frames={frames[index]}/>)}
  </div>
</ThemeContext.Provider>);
