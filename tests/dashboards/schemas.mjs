// Grafana's own TypeScript types as JSON Schema, on stdout: {name: schema}.
import {createRequire} from 'node:module';
import {mkdtempSync, rmSync, writeFileSync} from 'node:fs';
import {join} from 'node:path';

const require = createRequire(import.meta.url);
const {createGenerator} = require('ts-json-schema-generator');

const raw = '../@grafana/schema/dist/types/raw'; // its package.json exports no types of its own
const panels = {timeseries: 'timeseries', stat: 'stat', 'state-timeline': 'statetimeline', table: 'table'};
const lines = [
  `import type * as dashboard from '${raw}/dashboard/x/types.gen';`,
  'export type TheDashboard = dashboard.Dashboard;',
  'export type ThePanel = dashboard.Panel;',
  'export type TheRow = dashboard.RowPanel;',
];
const wanted = {dashboard: 'TheDashboard', panel: 'ThePanel', row: 'TheRow'};
for (const [kind, directory] of Object.entries(panels)) {
  const name = directory[0].toUpperCase() + directory.slice(1);
  lines.push(`import type * as ${directory} from '${raw}/composable/${directory}/panelcfg/x/types.gen';`);
  lines.push(`export type ${name}Options = ${directory}.Options;`);
  wanted[`${kind} options`] = `${name}Options`;
  if (kind !== 'stat') {
    lines.push(`export type ${name}Field = ${directory}.FieldConfig;`);
    wanted[`${kind} custom`] = `${name}Field`;
  }
}

const here = mkdtempSync(join(import.meta.dirname, '..', 'node_modules', '.schemas-'));
try {
  const path = join(here, 'entry.ts');
  const options = {
    target: 'es2022', module: 'esnext', moduleResolution: 'bundler', strict: true, skipLibCheck: true, noEmit: true,
    lib: ['es2022', 'dom'],
  };
  writeFileSync(path, lines.join('\n'));
  writeFileSync(join(here, 'tsconfig.json'), JSON.stringify({compilerOptions: options, files: ['entry.ts']}));
  const generator = createGenerator({path, tsconfig: join(here, 'tsconfig.json'), type: '*', skipTypeCheck: true});
  const schemas = Object.entries(wanted).map(([name, type]) => [name, generator.createSchema(type)]);
  process.stdout.write(JSON.stringify(Object.fromEntries(schemas)));
} finally {
  rmSync(here, {recursive: true});
}
